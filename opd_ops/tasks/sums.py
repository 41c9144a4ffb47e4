"""Few-shot sums: worked lines `12 + 34 = 46`, then `a + b =`; the reward is the exact integer before the newline.

The privileged teacher reads the solved line among its examples. EOS is the newline token.
"""

from typing import Any

import numpy as np

from opd_ops.tasks.task import Problem, Split, Tokens, draw_distinct
from opd_ops.tasks.text import load_tokenizer, vocabulary_digest

_SHOTS = ((23, 45), (61, 17), (38, 54))


class Sums:
    """Sums of two numbers with at most `digits` digits, asked in completion form after three examples."""

    name, instant = "sums", True

    def __init__(self, folder: str, digits: int = 2) -> None:
        if digits < 1:
            raise ValueError(f"task sums needs numbers of at least one digit, not {digits}")
        self.tokenizer = load_tokenizer(folder)
        self.limit = 10**digits
        newline = self.tokenizer.encode("\n", add_special_tokens=False)
        if len(newline) != 1:
            raise ValueError(
                f"the tokenizer of {folder} has no single newline token, which task sums ends answers with"
            )
        self.eos = newline[0]
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        def draw() -> tuple[tuple[int, int], Problem] | None:
            a, b = (int(x) for x in rng.integers(0, self.limit, 2))
            if ((a * 7919 + b * 104729) % 8 == 0) != (split == "held_out") or (a, b) in _SHOTS:
                return None
            question = f"{a} + {b} ="
            return (a, b), Problem(
                prompt=self._encode(_lines(_SHOTS) + question),
                answer=str(a + b),
                privileged=self._encode(_lines((*_SHOTS, (a, b))) + question),
            )

        return draw_distinct(draw, count, self.name)

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        if stream != "clean":
            raise ValueError(f"unknown stream {stream!r} of task sums; known: clean")
        problems = self.problems("train", count, rng)
        return [(problem.prompt, self._encode(f" {problem.answer}\n")) for problem in problems]

    def verify(self, problem: Problem, response: Tokens) -> float:
        return float(self.tokenizer.decode(response).split("\n")[0].strip() == problem.answer)

    def facts(self) -> dict[str, Any]:
        """What the tokens depend on besides the recipe."""
        return {"vocabulary": vocabulary_digest(self.tokenizer)}

    def _encode(self, text: str) -> Tokens:
        return self.tokenizer.encode(text, add_special_tokens=False)


def _lines(pairs: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{a} + {b} = {a + b}\n" for a, b in pairs)
