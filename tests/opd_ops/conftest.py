"""A tiny recipe, a task with prompts of unequal length, and trainers of both."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opd_ops.models import assemble, configuration, initialise
from opd_ops.recipe import (
    AdamW,
    Architecture,
    Evaluation,
    Fresh,
    Horizon,
    Mix,
    Objective,
    Opd,
    Precision,
    Recipe,
    Rlvr,
    Rollout,
    Sft,
    Task,
    Weights,
)
from opd_ops.tasks.task import Problem
from opd_ops.teacher.local import LocalTeacher

if TYPE_CHECKING:
    from opd_ops.training.loop import Trainer

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 8
ARCHITECTURE = Architecture(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=1,
    intermediate_size=48,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    initializer_range=0.3,  # sharp enough that no two tokens come near a tie
)


class Parity:
    """Ragged prompts; a response is right when its length has the parity of the prompt's last token.

    A random model earns about half the rewards, so that groups differ from the first step on.
    """

    pad, eos = PAD, EOS

    def problems(self, split: str, count: int, rng: np.random.Generator) -> list[Problem]:
        found: dict[tuple[int, ...], Problem] = {}
        while len(found) < count:
            tokens = tuple(int(t) for t in rng.integers(3, VOCABULARY, int(rng.integers(1, 6))))
            if (sum(tokens) % 4 == 0) == (split == "held_out"):
                prompt = [BOS, *tokens]
                found[tokens] = Problem(prompt=prompt, answer=str(tokens[-1] % 2), privileged=[*prompt, 3, *prompt])
        return list(found.values())

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        problems = self.problems("train", count, rng)
        return [(p.prompt, [*rng.integers(3, VOCABULARY, int(rng.integers(0, 5))).tolist(), EOS]) for p in problems]

    def verify(self, problem: Problem, response: list[int]) -> float:
        return float(len(response) % 2 == int(problem.answer))


def _recipe(objective: Objective, **changes: Any) -> Recipe:
    grouped = objective.needs_rewards
    fields = dict(
        study="test",
        arm=objective.kind,
        start=Fresh(architecture=ARCHITECTURE),
        task=Task(name="parity"),
        objective=objective,
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.1, warmup=2),
        horizon=Horizon(steps=10),
        rollout=Rollout(prompts=3 if grouped else 6, samples=4 if grouped else 1, max_new_tokens=8),
        evaluation=Evaluation(problems=8, samples=2),
        precision=Precision(micro_batch=4),
    )
    return Recipe(**(fields | changes))


def _weights(seed: int) -> tuple[Any, dict[str, Tensor]]:
    config = configuration(ARCHITECTURE, pad=PAD, bos=BOS, eos=EOS)
    return config, initialise(config, seed)


OBJECTIVES = {
    "sft": Sft(stream="any"),
    "opd": Opd(teacher=Weights(ref="other")),
    "opd-privileged": Opd(teacher=None),
    "opd-pg": Opd(teacher=Weights(ref="other"), estimator="policy-gradient"),
    "rlvr": Rlvr(),
    "mix": Mix(alpha=0.25, opd=Opd(teacher=Weights(ref="other"), estimator="policy-gradient", normaliser="sequence")),
}


_STATE = {"moments", "bases", "rails"}  # of what a trainer is given: the others are sources of rollouts


@pytest.fixture
def task() -> Parity:
    return Parity()


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """recipe(objective, **changes): a complete recipe on the ragged task."""
    return _recipe


@pytest.fixture
def weights() -> Callable[[int], tuple[Any, dict[str, Tensor]]]:
    """weights(seed) -> (configuration, fp32 weights) of a one-layer Qwen3."""
    return _weights


@pytest.fixture
def model() -> Any:
    return assemble(*_weights(0), torch.float32)


@pytest.fixture
def trainer() -> Callable[..., "Trainer"]:
    """trainer(name, seed=0, teacher=1, given=None, **changes).

    `teacher` seeds the teacher's weights, `given` goes to the trainer, `changes` to the recipe.
    Names: sft, opd, opd-privileged, opd-pg, rlvr, mix, or an objective.
    """

    def make(
        name: str | Objective, seed: int = 0, teacher: int = 1, given: dict[str, Any] | None = None, **changes: Any
    ) -> "Trainer":
        from opd_ops.training.inputs import InitialState, RolloutSources
        from opd_ops.training.loop import Trainer
        from opd_ops.training.student import DTYPES

        objective = OBJECTIVES[name] if isinstance(name, str) else name
        recipe, scorer = _recipe(objective, **changes), None
        if objective.needs_teacher:
            source = _weights(teacher if objective.teacher else 0)
            scorer = LocalTeacher(assemble(*source, DTYPES[recipe.precision.compute]), f"teacher-{teacher}")
        given = given or {}
        start = InitialState(*_weights(0), **{name: given[name] for name in given.keys() & _STATE})
        sources = RolloutSources(**{name: given[name] for name in given.keys() - _STATE})
        return Trainer(recipe, seed, start, Parity(), scorer, sources)

    return make


@pytest.fixture
def split() -> Callable[["Trainer", int], "Trainer"]:
    """split(trainer, rows): the same trainer with another micro-batch."""

    def change(trainer: "Trainer", rows: int) -> "Trainer":
        trainer.recipe = dataclasses.replace(
            trainer.recipe, precision=dataclasses.replace(trainer.recipe.precision, micro_batch=rows)
        )
        return trainer

    return change
