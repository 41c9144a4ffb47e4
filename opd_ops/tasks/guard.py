"""Verification with a time limit that no response can get around.

A task that compares strings (`instant`) is verified here. The checks of any other are carried out in a helper process,
which is ended and replaced when a response takes too long. What a reward costs is one line over a pipe.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from opd_ops.tasks.helper import Died, Helper, Killed, Overtime
from opd_ops.tasks.task import Check, CheckedTask, Problem, Split, TaskLike, Tokens, stops_of

SECONDS = 10.0


class VerifierFailed(ValueError):
    """A verifier raised, hung or died on a response; the message is one line."""


class Guarded:
    """`task` with at most `seconds` for each response.

    overtime: what happens to a response that takes longer, needs more memory than the helper has, or crashes it twice.
    `fail` raises; `wrong` gives it the reward 0.0 and counts it in `overtimes`, so that a long run does not depend on
    what a model writes. A verifier that raises anything else fails either way. The helper starts with the first reward.
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
        self.pad, self.eos, self.stops = task.pad, task.eos, stops_of(task)
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
            return self._exceeded(f"took longer than {self.seconds:g} s", problem, repr(shown))
        except Killed as error:
            return self._exceeded(f"failed: {error}", problem, repr(shown))
        except Died as error:
            raise self._failed(f"failed: {error}", problem, repr(shown)) from None
        if "reward" in reply:
            return float(reply["reward"])  # type: ignore[arg-type]
        if str(reply["error"]).startswith("MemoryError"):
            return self._exceeded(f"raised {reply['error']}", problem, repr(shown))
        raise self._failed(f"raised {reply['error']}", problem, repr(shown))

    def _exceeded(self, what: str, problem: Problem, shown: str) -> float:
        """The reward of a response whose verification exceeded a limit. Errors: VerifierFailed where that fails."""
        if self.overtime == "wrong":
            self.overtimes += 1
            return 0.0
        remedy = "raise resources.verifier_seconds, or count such responses as wrong (task.overtime='wrong')"
        raise self._failed(what, problem, shown, remedy)

    def _ask(self, check: Check) -> dict[str, object]:
        """The helper's reply. A helper that ended is replaced, and the check repeated once. Errors: Overtime, Died."""
        for repeated in (False, True):
            if self._helper is None:
                self._helper = Helper(check.function.rpartition(":")[0])
            try:
                return self._helper.ask(check, self.seconds)
            except (Overtime, Died) as error:
                self._helper = None
                if repeated or isinstance(error, Overtime):
                    raise
        raise AssertionError

    def _failed(self, what: str, problem: Problem, shown: str, remedy: str = "") -> VerifierFailed:
        remedy = remedy or "mend the verifier, or leave the problem out"
        text = (
            f"task {self.name}: the verifier {what}, on the response {shown} to the answer {problem.answer!r}; {remedy}"
        )
        return VerifierFailed(" ".join(text.split()))
