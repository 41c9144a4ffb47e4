"""Verification with a time limit that no response can evade.

A task that compares strings (`instant`) is verified here. The checks of any other task run in a process of their own,
which is killed and started again when a response takes too long. A reward costs one message over a pipe.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from opd_ops.tasks.task import CheckedTask, Problem, Split, TaskLike, Tokens, extra_stops
from opd_ops.tasks.verifier_process import CheckFailed, LimitExceeded, VerifierProcess

SECONDS = 10.0


class VerifierFailed(ValueError):
    """A verifier raised on a response, or exceeded a limit; the message is one line."""


class Guarded:
    """`task` with at most `seconds` for each response.

    overtime: what happens to a response that takes longer, needs more memory than the verifier's process has, or
    crashes it twice. `fail` raises; `wrong` gives it the reward 0.0 and counts it in `overtimes`, so that a long run
    does not depend on what a model writes. A verifier that raises anything else fails either way. The process starts
    with the first reward.
    Errors: ValueError for a task that is neither instant nor has checks.
    """

    def __init__(self, task: TaskLike, seconds: float = SECONDS, overtime: Literal["fail", "wrong"] = "fail") -> None:
        self.name: str = getattr(task, "name", type(task).__name__.lower())
        if seconds <= 0:
            raise ValueError(f"task {self.name}: a verifier needs a time limit above 0 s, not {seconds:g}")
        if overtime not in ("fail", "wrong"):
            raise ValueError(f"overtime is fail or wrong, not {overtime!r}")
        self.instant: bool = getattr(task, "instant", False)
        if not self.instant and not hasattr(task, "check"):
            raise ValueError(
                f"task {self.name} cannot be given a time limit: have it say instant = True, "
                "if it only compares strings, or give it a method check"
            )
        self.task, self.seconds, self.overtime = task, seconds, overtime
        self.pad, self.eos, self.stops = task.pad, task.eos, extra_stops(task)
        self.overtimes = 0
        self._process = VerifierProcess()

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        return self.task.problems(split, count, rng)

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        return self.task.demonstrations(stream, count, rng)

    def facts(self) -> dict[str, Any]:
        """What the task depends on besides the recipe."""
        return self.task.facts() if hasattr(self.task, "facts") else {}  # type: ignore[attr-defined]

    def verify(self, problem: Problem, response: Tokens) -> float:
        return self.rewards([(problem, response)])[0]

    def rewards(self, answered: Sequence[tuple[Problem, Tokens]]) -> list[float]:
        """The reward of each (problem, response without EOS), in order. Errors: VerifierFailed."""
        return [self._reward(problem, response) for problem, response in answered]

    def close(self) -> None:
        """Kill the verifier's process; the next reward starts another."""
        self._process.close()

    def _reward(self, problem: Problem, response: Tokens) -> float:
        label = f"{len(response)} tokens"
        try:
            if self.instant:
                return self.task.verify(problem, response)
            task: CheckedTask = self.task  # type: ignore[assignment]
            check = task.check(problem, response)
        except Exception as error:
            raise self._failure(f"raised {type(error).__name__}: {error}", problem, label) from error
        label = repr(check.response if len(check.response) <= 80 else f"{check.response[:80]}...")
        try:
            return self._process.run(check, self.seconds)
        except CheckFailed as error:
            raise self._failure(str(error), problem, label) from None
        except LimitExceeded as error:
            if self.overtime == "wrong":
                self.overtimes += 1
                return 0.0
            remedy = "raise resources.verifier_seconds, or count such responses as wrong (task.overtime='wrong')"
            raise self._failure(str(error), problem, label, remedy) from None

    def _failure(
        self, what: str, problem: Problem, label: str, remedy: str = "mend the verifier, or leave the problem out"
    ) -> VerifierFailed:
        text = (
            f"task {self.name}: the verifier {what}, on the response {label} to the answer {problem.answer!r}; {remedy}"
        )
        return VerifierFailed(" ".join(text.split()))
