"""The contract of a task: held-out and training problems, demonstration streams, and a verifier.

Tokens in, tokens out: a task owns its tokenizer, so student and teacher cannot use different templates.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from opd_ops.outside import load_object, parse_reference

Tokens = list[int]
Split = Literal["train", "held_out"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A prompt, its exact answer, and the prompt a privileged teacher reads (None: there is none).

    facts: what the verifier needs besides the answer, in JSON types.
    """

    prompt: Tokens
    answer: str
    privileged: Tokens | None = None
    facts: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """A verification as plain data, so that another process can carry it out.

    function: `module:name` or `/folder/file.py:name` (of a task's own file: f"{__file__}:name"), called with the
    response's text and the arguments (JSON types); it gives the reward.
    """

    function: str
    response: str
    arguments: dict[str, Any]

    def run(self) -> float:
        return float(load_object(parse_reference(self.function, "verify"))(self.response, **self.arguments))


class TaskLike(Protocol):
    """What the training loop needs of a task.

    A task with an alphabet of its own, on which models train from random weights, may also say `bos`, the token that
    begins its prompts. One whose responses may end in other tokens than `eos`, too, says `stops`.
    """

    pad: int
    eos: int

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        """`count` distinct problems of a split; the splits never share a prompt.

        Errors: ValueError when the split has fewer.
        """
        ...

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        """(prompt, response) pairs of a stream; responses end in EOS unless the stream packs documents."""
        ...

    def verify(self, problem: Problem, response: Tokens) -> float:
        """1.0 if the response (EOS excluded) answers the problem exactly, else 0.0. Nothing is executed."""
        ...


class CheckedTask(TaskLike, Protocol):
    """A task whose verifier may raise or hang on a response: `verify` runs as a `Check` in another process.

    Tasks that only compare strings set `instant = True` instead.
    """

    def check(self, problem: Problem, response: Tokens) -> Check: ...


def extra_stops(task: TaskLike) -> tuple[int, ...]:
    """The tokens besides EOS that end a response."""
    return tuple(getattr(task, "stops", ()))


def draw_distinct(
    draw: Callable[[], tuple[Hashable, Problem] | None], count: int, task: str, patience: int = 10_000
) -> list[Problem]:
    """The first `count` problems with distinct keys; None is a draw of the other split.

    Errors: ValueError when `patience` draws in a row bring nothing new.
    """
    problems: dict[Hashable, Problem] = {}
    idle = 0
    while len(problems) < count:
        drawn = draw()
        if drawn is None or drawn[0] in problems:
            idle += 1
            if idle == patience:
                raise ValueError(
                    f"task {task} was asked for {count} distinct problems and found {len(problems)} before {patience} "
                    "draws brought no other: ask for fewer, or widen the task's options"
                )
            continue
        problems[drawn[0]], idle = drawn[1], 0
    return list(problems.values())
