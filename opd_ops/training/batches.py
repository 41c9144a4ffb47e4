"""Batches of one optimizer step: demonstrations for SFT, own rollouts for OPD and RLVR.

Every draw is keyed by (seed, stream, step), never by the arm's name: arms of a seed see the same prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from opd_ops.objectives.objective import Batch
from opd_ops.recipe import Rollout
from opd_ops.rollout import hf
from opd_ops.rollout.rollout import Sampled, uniforms
from opd_ops.tasks.task import Problem, TaskLike, Tokens

PROMPTS, DEMONSTRATIONS, HELD_OUT = 1, 2, 3  # streams of random numbers


def collate(prompts: Sequence[Tokens], responses: Sequence[Tokens], pad: int, **columns: torch.Tensor) -> Batch:
    """Left-pad prompts and right-pad responses into one batch; the mask covers response tokens only."""
    left = max(len(p) for p in prompts)
    right = max(len(r) for r in responses)
    ids = torch.full((len(prompts), left + right), pad, dtype=torch.long)
    attention = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, left - len(prompt) : left + len(response)] = torch.tensor([*prompt, *response])
        attention[row, left - len(prompt) : left + len(response)] = 1
    return Batch(
        ids=ids,
        attention=attention,
        positions=(attention.cumsum(1) - 1).clamp(min=0),
        width=right,
        mask=attention[:, left:].float(),
        **columns,
    )


def demonstrations(task: TaskLike, stream: str, count: int, seed: int, step: int) -> Batch:
    """The SFT batch of a step."""
    rng = np.random.default_rng((seed, DEMONSTRATIONS, step))
    pairs = task.demonstrations(stream, count, rng)
    return collate([p for p, _ in pairs], [r for _, r in pairs], task.pad)


def sample(
    model: PreTrainedModel, task: TaskLike, problems: Sequence[Problem], spec: Rollout, seed: int, step: int
) -> list[Sampled]:
    """`spec.samples` responses to each problem, grouped by problem."""
    prompts = [problem.prompt for problem in problems for _ in range(spec.samples)]
    draws = None
    if spec.temperature > 0:
        addresses = [(p, s) for p in range(len(problems)) for s in range(spec.samples)]
        draws = np.stack([uniforms(seed, step, p, s, spec.max_new_tokens) for p, s in addresses])
    return hf.generate(
        model,
        prompts,
        draws,
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        eos=task.eos,
        pad=task.pad,
    )


def reward(task: TaskLike, problem: Problem, rollout: Sampled) -> float:
    """Verifier's reward; a truncated response earns none."""
    return 0.0 if rollout.truncated else task.verify(problem, rollout.tokens[:-1])
