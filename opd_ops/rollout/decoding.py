"""One sampling call of a `Decoder`: its prompts, its KV cache, and each row's position.

    columns   [ prefix shared by all prompts | rest of each, left-padded | generated tokens ]

The shared prefix (few-shot examples, a system prompt) and equal prompts (several samples of one) are computed once.
Left padding is explicit, as a mask and positions: all rows write the same column, each at its own position.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_ops.rollout.decoder import Decoder
from opd_ops.rollout.rollout import Tokens

SAVED = 64  # prompt tokens that a shared prefix must save to be worth a forward pass of its own


class Decoding:
    """Prefill the KV cache with prompts, then decode one token per row at a time.

    max_new_tokens: columns of the cache beyond the prompts. pad: any token of the vocabulary. logits: [B, V], of the
    prompts' next tokens. cache: one [rows, KV + KV, columns, D] per layer, keys before values.
    """

    def __init__(self, decoder: Decoder, prompts: Sequence[Tokens], *, max_new_tokens: int, pad: int) -> None:
        device, dtype = decoder.embedding.device, decoder.embedding.dtype
        unique = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        prefix = _shared_prefix_length(list(unique))
        self.decoder = decoder
        self.column = max(map(len, unique))
        self.positions = torch.tensor([len(prompt) for prompt in unique], device=device)
        columns = self.column + max_new_tokens
        self.angles = decoder.angles(columns)
        shape = (len(unique), 2 * decoder.keys, columns, decoder.width)
        self.cache = [torch.empty(shape, dtype=dtype, device=device) for _ in decoder.layers]

        ids = torch.full((len(unique), self.column - prefix), pad)
        padding = torch.zeros(len(unique), columns, dtype=torch.bool)
        for prompt, row in unique.items():
            pads = self.column - len(prompt)
            ids[row, pads:] = torch.tensor(prompt[prefix:])
            padding[row, prefix : prefix + pads] = True
        padding = padding.to(device)
        self.mask = _mask_scores(padding[:, None, None], dtype)

        order = torch.arange(self.column, device=device)
        future = order > order[:, None]
        if prefix:
            shared = torch.tensor([next(iter(unique))[:prefix]], device=device)
            mask = _mask_scores(future[None, None, :prefix, :prefix], dtype)
            decoder.forward(shared, self.angles[order[None, :prefix]], self.cache, 0, mask)
        mask = _mask_scores(future[None, None, prefix:] | padding[:, None, None, : self.column], dtype)
        positions = order[prefix:] - self.column + self.positions[:, None]
        hidden = decoder.forward(ids.to(device), self.angles[positions.clamp(min=0)], self.cache, prefix, mask)
        self.logits = decoder.logits(hidden)
        if len(unique) < len(prompts):
            rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
            self.select_rows(rows)
            self.logits = self.logits[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to each row, [B]; the logits of the next, [B, V]."""
        mask = self.mask[..., : self.column + 1]
        angles = self.angles[self.positions[:, None]]
        hidden = self.decoder.forward(tokens[:, None], angles, self.cache, self.column, mask)
        self.column += 1
        self.positions = self.positions + 1
        return self.decoder.logits(hidden)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these rows of the cache, [B'] indices, in this order; a row may come more than once."""
        for layer, tensor in enumerate(self.cache):
            self.cache[layer] = tensor[rows]
        self.mask, self.positions = self.mask[rows], self.positions[rows]


def _mask_scores(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention scores to add, [...] of `hidden`: 0, or the most negative number where keys are hidden.

    Finite, since a padded position attends to nothing and must not become NaN.
    """
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)


def _shared_prefix_length(prompts: list[tuple[int, ...]]) -> int:
    """Length of the prefix to compute once; every prompt keeps a token after it."""
    first, last = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    return length if length * (len(prompts) - 1) >= SAVED else 0
