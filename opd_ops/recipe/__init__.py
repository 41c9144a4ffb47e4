"""A recipe is a full, frozen description of one training arm; its fingerprint identifies the run.

Plain dataclasses without a heavy import, so that the asset graph loads recipes in milliseconds. `Resources` says where
a run executes (devices, workers, paths), and is not part of the fingerprint.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from opd_ops.recipe.constraint import Basis, Constraint, Given, Random, UpdateOf, WeightsOf
from opd_ops.recipe.later import LATER, plain
from opd_ops.recipe.mix import Mix
from opd_ops.recipe.name import ALLOWED, NAME
from opd_ops.recipe.objective import Objective
from opd_ops.recipe.opd import Opd, Selection
from opd_ops.recipe.reaction import NOISES, Guard, Reaction
from opd_ops.recipe.resources import Resources, Workers
from opd_ops.recipe.rlvr import Rlvr
from opd_ops.recipe.rollout import Correction, Replay, Rollout, Student, Teacher
from opd_ops.recipe.sft import Sft
from opd_ops.recipe.start import Architecture, FinalOf, Fresh, SnapshotOf, Start, Weights
from opd_ops.recipe.training import AdamW, Evaluation, Gate, Horizon, NormOf, Precision

__all__ = [
    "AdamW",
    "Architecture",
    "Basis",
    "Constraint",
    "Correction",
    "Evaluation",
    "FinalOf",
    "Fresh",
    "Gate",
    "Given",
    "Guard",
    "Horizon",
    "Mix",
    "NormOf",
    "Objective",
    "Opd",
    "Precision",
    "Random",
    "Reaction",
    "Recipe",
    "Replay",
    "Resources",
    "Rlvr",
    "Rollout",
    "Selection",
    "Sft",
    "SnapshotOf",
    "Start",
    "Student",
    "Task",
    "Teacher",
    "UpdateOf",
    "Weights",
    "WeightsOf",
    "Workers",
    "differences",
    "fingerprint",
]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A registered task and its parameters.

    overtime: what happens to a response whose verification exceeds its limit of time or memory. `wrong` gives it the
    reward 0.0, and the tables count it; `fail` ends the step. Errors: ValueError for another word.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    overtime: Literal["wrong", "fail"] = field(default="wrong", metadata=LATER)

    def __post_init__(self) -> None:
        if self.overtime not in ("wrong", "fail"):
            raise ValueError(f"task.overtime is wrong or fail, got {self.overtime!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One arm of a study. Errors: ValueError, on building it, when its gradient would not be the declared one."""

    study: str
    arm: str
    start: Start
    task: Task
    objective: Objective
    optimizer: AdamW
    horizon: Horizon
    rollout: Rollout
    evaluation: Evaluation
    precision: Precision = field(default_factory=Precision)
    constraint: Constraint | None = field(default=None, metadata=LATER)
    reaction: Reaction | None = field(default=None, metadata=LATER)
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"recipe {self.name!r} cannot name a folder: {ALLOWED}")
        reasons = [
            *self.objective.refusals(self.rollout),
            *_reaction_refusals(self.name, self.reaction, self.constraint),
        ]
        reasons += _worker_refusals(self.resources.workers, self.constraint, self.reaction)
        for reason in reasons:
            raise ValueError(f"recipe {self.name} is refused: {reason}")

    @property
    def name(self) -> str:
        return f"{self.study}.{self.arm}"

    @property
    def draws(self) -> bool:
        """Whether a step draws new responses: it reads neither demonstrations nor another run's rollouts."""
        return self.objective.demonstrations is None and not isinstance(self.rollout.source, Replay)

    def identity(self) -> dict[str, Any]:
        """Everything the numbers depend on, as canonical JSON types."""
        fields = plain(self)
        del fields["resources"]
        return json.loads(json.dumps(fields, sort_keys=True))

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the identity."""
        return fingerprint(self.identity())


def fingerprint(identity: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """Field-by-field differences of two identities, each as `field: stored -> current`."""
    lines = []
    for key in sorted(stored.keys() | current.keys()):
        old, new = stored.get(key), current.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return lines


def _reaction_refusals(name: str, reaction: Reaction | None, constraint: Constraint | None) -> list[str]:
    """Why a reaction does not fit the recipe, or its constraint."""
    if reaction is None:
        return []
    if reaction.guard.reference == name:
        return ["a run cannot wait for the other seeds of its own recipe to guard it: name another reference"]
    if reaction.action == "release" and (constraint is None or constraint.mode != "gradient"):
        return ["a reaction releases a constraint of mode 'gradient': name one, or react with noise"]
    if reaction.action in NOISES and constraint is not None:
        return ["noise would leave the constraint's subspace: leave the constraint out, or let the reaction release it"]
    return []


def _worker_refusals(workers: int, constraint: Constraint | None, reaction: Reaction | None) -> list[str]:
    """Why the weights cannot be split over several workers."""
    if workers == 1:
        return []
    watchers = (("constraint projects", constraint), ("reaction watches", reaction))
    return [
        f"a {what} whole matrices, and resources.workers={workers} splits their rows: set workers=1"
        for what, spec in watchers
        if spec is not None
    ]
