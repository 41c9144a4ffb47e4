"""Choose the steps of a trajectory that a table covers: all, at most MOST, or named steps."""

import math
from collections.abc import Sequence

ALL, FEW = "all", "few"
MOST = 4  # steps of "few"


def require_choice(option: str, text: str) -> str:
    """Return the choice, with named steps ascending and unique. Errors: ValueError unless all, few or steps from 1
    up."""
    parts = [part.strip() for part in text.split(",")]
    named = all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**63 for part in parts)
    if text.strip() not in (ALL, FEW) and not named:
        raise ValueError(f"{option} {text!r} is not all, few or steps from 1 up, such as 100,1000")
    return ",".join(map(str, sorted({int(part) for part in parts}))) if named else text.strip()


def require_known(option: str, choice: str, steps: Sequence[int]) -> None:
    """Errors: ValueError if a named step is not one of these."""
    if choice not in (ALL, FEW):
        for part in choice.split(","):
            if int(part) not in steps:
                available = ", ".join(map(str, steps))
                raise ValueError(f"{option} names step {part}, which is no snapshot; there are: {available}")


def choose_steps(steps: Sequence[int], choice: str) -> tuple[int, ...]:
    """Those of the ascending `steps`, from 1 up, that a choice takes.

    all: every step. few: MOST steps at most, the nearest to equal distances in log(step), with the first and the last.
    Otherwise the named steps that exist.
    """
    if choice == ALL or (choice == FEW and len(steps) <= MOST):
        return tuple(steps)
    if choice != FEW:
        named = {int(part) for part in choice.split(",")}
        return tuple(step for step in steps if step in named)
    first, last = math.log(steps[0]), math.log(steps[-1])
    targets = [first + (last - first) * place / (MOST - 1) for place in range(MOST)]
    return tuple(sorted({min(steps, key=lambda step: (abs(math.log(step) - target), step)) for target in targets}))
