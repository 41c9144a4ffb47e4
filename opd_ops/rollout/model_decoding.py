"""One sampling call of a model that `Decoder` does not support: its own forward, left-padded, with a DynamicCache.

Attention mask and position ids are explicit, since the defaults are wrong with left padding. The KV cache is
transformers'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from opd_ops.rollout.rollout import Tokens


class ModelDecoding:
    """The interface of `Decoding`. logits: [B, V], of the prompts' next tokens."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Tokens], *, pad: int) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), pad)
        attention = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            attention[row, width - len(prompt) :] = 1
        self.attention = attention.to(model.device)
        self.positions = (self.attention.cumsum(1) - 1).clamp(min=0)
        self.logits = self._forward(ids.to(model.device))

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to each row, [B]; the logits of the next, [B, V]."""
        inputs = tokens[:, None]
        self.attention = torch.cat([self.attention, torch.ones_like(inputs)], 1)
        self.positions = self.positions[:, -1:] + 1
        return self._forward(inputs)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these rows of the cache, [B'] indices, in this order."""
        self.cache.batch_select_indices(rows)
        self.attention, self.positions = self.attention[rows], self.positions[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        return self.model(
            input_ids=ids,
            attention_mask=self.attention,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
