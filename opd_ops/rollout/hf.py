"""The Hugging Face backend: left-padded, KV-cached batched sampling by inverse CDF.

Rows that have finished keep receiving PAD, their outputs are discarded. Attention mask and position ids are always
explicit: with left padding, the defaults are wrong.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from opd_ops.rollout.rollout import Sampled, Tokens


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    uniforms: np.ndarray | None,
    *,
    max_new_tokens: int,
    temperature: float,
    eos: int,
    pad: int,
) -> list[Sampled]:
    """One response per prompt, in order.

    uniforms: [B, max_new_tokens] float64; temperature 0 is greedy and needs none. A token v is drawn when the
    cumulative probability of softmax(logits / temperature), in float64, first exceeds u; log-probabilities are of
    the unscaled softmax.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    attention = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    drawn: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    alive = torch.ones(len(prompts), dtype=torch.bool)
    inputs = ids
    for t in range(max_new_tokens):
        logits = model(
            input_ids=inputs,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        if temperature == 0:
            token = logprobs.argmax(-1)
        else:
            assert uniforms is not None
            token = _draw(logits, torch.from_numpy(uniforms[:, t]), temperature)
        scores.append(logprobs.gather(1, token[:, None])[:, 0])
        token = torch.where(alive, token, pad)
        drawn.append(token)
        alive = alive & (token != eos)
        if not alive.any():
            break
        inputs = token[:, None]
        attention = torch.cat([attention, torch.ones_like(inputs)], 1)
        positions = positions[:, -1:] + 1
    return _collect(torch.stack(drawn, 1).numpy(), torch.stack(scores, 1).numpy(), eos)


def _draw(logits: torch.Tensor, u: torch.Tensor, temperature: float) -> torch.Tensor:
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    token = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)


def _collect(tokens: np.ndarray, logprobs: np.ndarray, eos: int) -> list[Sampled]:
    rollouts = []
    for row, scores in zip(tokens, logprobs, strict=True):
        ends = np.flatnonzero(row == eos)
        length = int(ends[0]) + 1 if len(ends) else len(row)
        rollouts.append(
            Sampled(tokens=row[:length].tolist(), logprobs=scores[:length].tolist(), truncated=not len(ends))
        )
    return rollouts
