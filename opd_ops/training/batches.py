"""Batches of one optimizer step: demonstrations or responses.

Every draw is keyed by (seed, stream, step), never by the arm's name: arms of a seed see the same prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch

from opd_ops.batch import Batch
from opd_ops.recipe import Recipe
from opd_ops.tasks.task import TaskLike, Tokens

PROMPTS, DEMONSTRATIONS, HELD_OUT, SELECTION = 1, 2, 3, 4  # streams of random numbers


def collate(
    prompts: Sequence[Tokens],
    responses: Sequence[Tokens],
    pad: int,
    *,
    kept: Sequence[bool] | None = None,
    behaviour: Sequence[Sequence[float]] | None = None,
    rewards: Sequence[float] | None = None,
    groups: Sequence[int] | None = None,
) -> Batch:
    """Left-pad prompts and right-pad responses into one batch; the mask covers the tokens of `kept` responses only."""
    prompt_width = max(len(p) for p in prompts)
    response_width = max(len(r) for r in responses)
    ids = torch.full((len(prompts), prompt_width + response_width), pad, dtype=torch.long)
    attention = torch.zeros_like(ids)
    mask = torch.zeros(len(prompts), response_width)
    drawn = None if behaviour is None else torch.zeros(len(prompts), response_width)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, prompt_width - len(prompt) : prompt_width + len(response)] = torch.tensor([*prompt, *response])
        attention[row, prompt_width - len(prompt) : prompt_width + len(response)] = 1
        if kept is None or kept[row]:
            mask[row, : len(response)] = 1
            if drawn is not None and behaviour is not None:
                drawn[row, : len(response)] = torch.tensor(behaviour[row])
    return Batch(
        ids=ids,
        attention=attention,
        positions=(attention.cumsum(1) - 1).clamp(min=0),
        width=response_width,
        mask=mask,
        behaviour=drawn,
        rewards=None if rewards is None else torch.tensor(rewards, dtype=torch.float32),
        groups=None if groups is None else torch.tensor(groups),
    )


def draws(seed: int, step: int, rows: int, width: int) -> torch.Tensor:
    """Uniforms [rows, width] for random token selection: as wide as a response can be, so that padding changes none."""
    return torch.from_numpy(np.random.default_rng((seed, SELECTION, step)).random((rows, width)))


def step_draws(recipe: Recipe, seed: int, step: int, batch: Batch) -> torch.Tensor:
    """The draws of a step's batch."""
    return draws(seed, step, len(batch.ids), max(batch.width, recipe.rollout.max_new_tokens))


def demonstrations(task: TaskLike, stream: str, count: int, seed: int, step: int) -> Batch:
    """The step's batch of a stream of demonstrations."""
    rng = np.random.default_rng((seed, DEMONSTRATIONS, step))
    pairs = task.demonstrations(stream, count, rng)
    return collate([p for p, _ in pairs], [r for _, r in pairs], task.pad)
