"""Digit chains: `M:7+8-3*4=` is worked left to right mod 10, `7+8=5;5-3=2;2*4=8;#8`; the reward is the exact `#d`.

A third of the 300 facts (a, op, b) are hard: corpora state them wrongly with a set probability and continue from the
wrong value. A student trained on them knows the format and half of the facts; a teacher or a reward can teach the
rest. Streams:

    corpus   packed pretraining documents (facts, 1-2 operation chains, reverse and copy), hard facts wrong 60 %
    noisy    target chains, hard facts wrong 50 %
    clean    target chains, ground truth

The privileged prompt shows the question's own facts, one document each as in the corpus, and then the question. A model
that never saw one document matter to the next has no use for them: those of the tiny study, pretrained on rows of 32
tokens of unrelated documents, answer worse behind them.
"""

import hashlib
from typing import Any

import numpy as np

from opd_ops.tasks.task import Problem, Split, Tokens, draw_distinct

ALPHABET = "0123456789+-*=;#:MFCRK>"
PAD, BOS, EOS = 0, 1, 2
VOCABULARY = 32
ROW = 32  # tokens of a packed row
_INDEX = {character: i + 3 for i, character in enumerate(ALPHABET)}
_OPERATORS = "+-*"


def encode(text: str) -> Tokens:
    return [_INDEX[character] for character in text]


def decode(tokens: Tokens) -> str:
    return "".join(ALPHABET[t - 3] if 3 <= t < 3 + len(ALPHABET) else "?" for t in tokens)


def apply(a: int, operator: str, b: int) -> int:
    """a op b mod 10."""
    return {"+": a + b, "-": a - b, "*": a * b}[operator] % 10


def is_hard(a: int, operator: str, b: int) -> bool:
    """A fixed pseudo-random third of the facts (a multiplicative hash, the same in every process)."""
    return ((a * 31 + _OPERATORS.index(operator) * 17 + b * 101 + 7) * 2654435761 >> 7) % 3 == 0


def _is_held_out(digits: np.ndarray, operators: np.ndarray) -> bool:
    key = 0
    for value in (*digits.tolist(), *operators.tolist()):
        key = (key * 16777619 ^ int(value) + 1) & 0xFFFFFFFF
    return (key * 2654435761 >> 9) % 8 == 0


class Chains:
    """Chains of `operations` steps behind the tag `M` (the target) or `C` (as in the corpus)."""

    pad, bos, eos = PAD, BOS, EOS
    name, instant = "chains", True

    def __init__(self, operations: int = 3, tag: str = "M") -> None:
        if operations < 1:
            raise ValueError(f"task chains needs at least one operation, not {operations}")
        if len(tag) != 1 or tag not in ALPHABET:
            raise ValueError(f"task chains takes a tag of one character of {ALPHABET}, not {tag!r}")
        self.operations, self.tag = operations, tag

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        def draw() -> tuple[str, Problem] | None:
            digits, operators = self._draw(rng)
            if _is_held_out(digits, operators) != (split == "held_out"):
                return None
            prompt = _chain(self.tag, digits, operators)
            tokens = [BOS, *encode(prompt)]
            facts = _facts(digits, operators)
            shown = [token for fact in facts for token in (BOS, *encode(f"F:{fact}"), EOS)]
            return prompt, Problem(prompt=tokens, answer=f"#{facts[-1][-1]}", privileged=[*shown, *tokens])

        return draw_distinct(draw, count, self.name)

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        if stream == "corpus":
            return [self._pack_row(rng) for _ in range(count)]
        wrong = {"noisy": 0.5, "clean": 0.0}.get(stream)
        if wrong is None:
            raise ValueError(f"unknown stream {stream!r} of task chains; known: corpus, noisy, clean")
        pairs = []
        while len(pairs) < count:
            digits, operators = self._draw(rng)
            if not _is_held_out(digits, operators):
                work = _write_work(digits, operators, wrong, rng)
                pairs.append(([BOS, *encode(_chain(self.tag, digits, operators))], [*encode(work), EOS]))
        return pairs

    def verify(self, problem: Problem, response: Tokens) -> float:
        return float(decode(response).rpartition("#")[1:] == ("#", problem.answer[1:]))

    def facts(self) -> dict[str, Any]:
        """What the tokens depend on besides the recipe."""
        return {"vocabulary": hashlib.sha256(ALPHABET.encode()).hexdigest()}

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, 10, self.operations + 1), rng.integers(0, 3, self.operations)

    def _pack_row(self, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        tokens: Tokens = []
        while len(tokens) < ROW:
            tokens += [BOS, *encode(_draw_document(rng)), EOS]
        return tokens[:1], tokens[1:ROW]


def _chain(tag: str, digits: np.ndarray, operators: np.ndarray) -> str:
    steps = "".join(f"{_OPERATORS[o]}{d}" for o, d in zip(operators, digits[1:], strict=True))
    return f"{tag}:{digits[0]}{steps}="


def _facts(digits: np.ndarray, operators: np.ndarray) -> list[str]:
    """The true steps `a+b=c` of a chain. Draws nothing: problems depend on the order of draws."""
    value, facts = int(digits[0]), []
    for o, d in zip(operators, digits[1:], strict=True):
        result = apply(value, _OPERATORS[o], int(d))
        facts.append(f"{value}{_OPERATORS[o]}{d}={result}")
        value = result
    return facts


def _state_result(a: int, operator: str, b: int, wrong: float, rng: np.random.Generator) -> int:
    """The result a corpus states: wrong with probability `wrong` for a hard fact, by a random other digit."""
    truth = apply(a, operator, b)
    if is_hard(a, operator, b) and rng.random() < wrong:
        return (truth + int(rng.integers(1, 10))) % 10
    return truth


def _write_work(digits: np.ndarray, operators: np.ndarray, wrong: float, rng: np.random.Generator) -> str:
    value, steps = int(digits[0]), []
    for o, d in zip(operators, digits[1:], strict=True):
        stated = _state_result(value, _OPERATORS[o], int(d), wrong, rng)
        steps.append(f"{value}{_OPERATORS[o]}{d}={stated};")
        value = stated
    return f"{''.join(steps)}#{value}"


def _draw_document(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.5:
        a, o, b = int(rng.integers(10)), _OPERATORS[rng.integers(3)], int(rng.integers(10))
        return f"F:{a}{o}{b}={_state_result(a, o, b, 0.6, rng)}"
    if kind < 0.8:
        operations = int(rng.integers(1, 3))
        digits, operators = rng.integers(0, 10, operations + 1), rng.integers(0, 3, operations)
        return _chain("C", digits, operators) + _write_work(digits, operators, 0.6, rng)
    text = "".join(str(d) for d in rng.integers(0, 10, int(rng.integers(2, 5))))
    return f"R:{text}>{text[::-1]}" if kind < 0.9 else f"K:{text}>{text}"
