"""One sampling call of a `Decoder`: its prompts, its columns of keys and values, and where each row stands.

    columns   [ prefix shared by all prompts | rest of each, left-padded | generated tokens ]

The shared prefix (few-shot examples, a system prompt) and equal prompts (several samples of one) are computed once.
Left padding is a mask and positions, both explicit: rows share the column, each has its own position.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_ops.rollout.decoder import Decoder
from opd_ops.rollout.rollout import Tokens

SAVED = 64  # prompt tokens that a shared prefix must save to be worth a forward pass of its own


class Decoding:
    """Prompts taken in, then one token per row at a time.

    room: tokens to make place for. pad: any token of the vocabulary. logits: [B, V], of the prompts' next tokens.
    """

    def __init__(self, decoder: Decoder, prompts: Sequence[Tokens], *, room: int, pad: int) -> None:
        device, dtype = decoder.embedding.device, decoder.embedding.dtype
        unique = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        prefix = _shared(list(unique))
        self.decoder = decoder
        self.column = max(map(len, unique))
        self.positions = torch.tensor([len(prompt) for prompt in unique], device=device)
        columns = self.column + room
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
        self.mask = _hide(padding[:, None, None], dtype)

        order = torch.arange(self.column, device=device)
        future = order > order[:, None]
        if prefix:
            shared = torch.tensor([next(iter(unique))[:prefix]], device=device)
            mask = _hide(future[None, None, :prefix, :prefix], dtype)
            decoder.forward(shared, self.angles[order[None, :prefix]], self.cache, 0, mask)
        mask = _hide(future[None, None, prefix:] | padding[:, None, None, : self.column], dtype)
        positions = order[prefix:] - self.column + self.positions[:, None]
        hidden = decoder.forward(ids.to(device), self.angles[positions.clamp(min=0)], self.cache, prefix, mask)
        self.logits = decoder.logits(hidden)
        if len(unique) < len(prompts):
            rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
            self.keep(rows)
            self.logits = self.logits[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to each row, [B]; the logits of the next, [B, V]."""
        mask = self.mask[..., : self.column + 1]
        angles = self.angles[self.positions[:, None]]
        hidden = self.decoder.forward(tokens[:, None], angles, self.cache, self.column, mask)
        self.column += 1
        self.positions = self.positions + 1
        return self.decoder.logits(hidden)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows, [B'] indices, in this order; a row may come more than once."""
        for layer, stored in enumerate(self.cache):
            self.cache[layer] = stored[rows]
        self.mask, self.positions = self.mask[rows], self.positions[rows]


def _hide(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Scores to add where keys are hidden. Finite: a padded position sees nothing, and must not become NaN."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)


def _shared(prompts: list[tuple[int, ...]]) -> int:
    """Length of the prefix to compute once; every prompt keeps a token after it."""
    first, last = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    return length if length * (len(prompts) - 1) >= SAVED else 0
