"""Verification with a time limit that no response can get around.

A task that compares strings (`instant`) is verified here. The checks of any other are carried out in a helper process,
which is ended and replaced when a response takes too long. What a reward costs is one line over a pipe.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from opd_ops.tasks.helper import Died, Helper, Overtime
from opd_ops.tasks.task import Check, CheckedTask, Problem, Split, TaskLike, Tokens

SECONDS = 10.0


class VerifierFailed(ValueError):
    """A verifier raised, hung or died on a response; the message is one line."""


class Guarded:
    """`task` with at most `seconds` for each response.

    overtime: what a response that takes longer gets. `fail` raises; `wrong` gives it the reward 0.0 and counts it in
    `overtimes`, so that a long run does not depend on what a model writes. The helper starts with the first reward.
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
        self.pad, self.eos = task.pad, task.eos
        self.overtimes = 0
        self._helper: Helper | None = None

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
        """End the helper; the next reward starts another."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _reward(self, problem: Problem, response: Tokens) -> float:
        shown = f"{len(response)} tokens"
        try:
            if self.instant:
                return self.task.verify(problem, response)
            task: CheckedTask = self.task  # type: ignore[assignment]
            check = task.check(problem, response)
        except Exception as error:
            raise self._failed(f"raised {type(error).__name__}: {error}", problem, shown) from error
        shown = check.response if len(check.response) <= 80 else f"{check.response[:80]}..."
        try:
            reply = self._ask(check)
        except Overtime:
            self._helper = None
            if self.overtime == "wrong":
                self.overtimes += 1
                return 0.0
            what = f"took longer than {self.seconds:g} s"
            remedy = "raise the limit, or count such responses as wrong (overtime='wrong')"
            raise self._failed(what, problem, repr(shown), remedy) from None
        except Died as error:
            self._helper = None
            raise self._failed(f"failed: {error}", problem, repr(shown)) from None
        if "reward" not in reply:
            raise self._failed(f"raised {reply['error']}", problem, repr(shown))
        return float(reply["reward"])  # type: ignore[arg-type]

    def _ask(self, check: Check) -> dict[str, object]:
        """A helper that was ended from outside is replaced, and the check repeated once."""
        module = check.function.partition(":")[0]
        if self._helper is not None:
            try:
                return self._helper.ask(check, self.seconds)
            except Died:
                self._helper = None
        self._helper = Helper(module)
        return self._helper.ask(check, self.seconds)

    def _failed(self, what: str, problem: Problem, shown: str, remedy: str = "") -> VerifierFailed:
        remedy = remedy or "mend the verifier, or leave the problem out"
        text = (
            f"task {self.name}: the verifier {what}, on the response {shown} to the answer {problem.answer!r}; {remedy}"
        )
        return VerifierFailed(" ".join(text.split()))
