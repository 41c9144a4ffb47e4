"""The contract of a task: held-out and training problems, demonstration streams, and a verifier.

Tokens in, tokens out: a task owns its tokenizer, so that no template can drift between student and teacher.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A prompt, its exact answer, and the prompt a privileged teacher reads (None: the same)."""

    prompt: Tokens
    answer: str
    privileged: Tokens | None = None


class TaskLike(Protocol):
    """What the training loop needs of a task."""

    pad: int
    eos: int

    def problems(self, split: Literal["train", "held_out"], count: int, rng: np.random.Generator) -> list[Problem]:
        """`count` distinct problems of a split; the splits never share a prompt."""
        ...

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        """(prompt, response) pairs of a stream; responses end in EOS unless the stream packs documents."""
        ...

    def verify(self, problem: Problem, response: Tokens) -> float:
        """1.0 if the response (EOS excluded) answers the problem exactly, else 0.0. Nothing is executed."""
        ...
