"""Any generator of reasoning-gym as a task: its question, its scorer, a threshold on the score.

reward = 1 if score_answer(answer, entry) >= threshold else 0. Every generator scores its own stated answer exactly 1.0;
a wrong answer can earn partial credit, up to 0.995 for a long answer with a stray letter. Streams:

    clean    the stated answer
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from opd_ops.tasks import generators
from opd_ops.tasks.task import Check, Problem, Split, Tokens, draw_distinct
from opd_ops.tasks.text import INSTRUCTION, Eos, Text

PATIENCE = 2_000  # draws in a row without a new problem; some generators take a second each


class Reasoning:
    """Problems of one reasoning-gym dataset; a question's hash decides its split, one in eight is held out.

    config: the dataset's own options. threshold: the least score, in (0, 1], that earns the reward. The other options
    are those of `Text`. Errors: ValueError for what `generators.require_dataset` and `Text` refuse.
    """

    instant = False

    def __init__(
        self,
        folder: str,
        dataset: str = "basic_arithmetic",
        config: dict[str, Any] | None = None,
        threshold: float = 1.0,
        eos: Eos = None,
        template: bool = False,
        instruction: str = INSTRUCTION,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"task reasoning: the threshold lies above 0 and at most at 1, not at {threshold}")
        generators.require_dataset(dataset, config or {})
        self.dataset, self.config, self.threshold = dataset, config or {}, threshold
        self.name = f"reasoning ({dataset})"
        self.text = Text(folder, eos, template, instruction)
        self.pad, self.eos, self.stops = self.text.pad, self.text.eos, self.text.stops

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        addresses = _addresses(rng)

        def draw() -> tuple[str, Problem] | None:
            seed, index = next(addresses)
            entry = generators.make_entry(self.dataset, self.config, seed, index)
            question = entry["question"]
            if _is_held_out(question) != (split == "held_out"):
                return None
            return question, self._problem(question, entry["answer"], seed, index)

        return draw_distinct(draw, count, self.name, PATIENCE)

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        """Errors: ValueError for an unknown stream, and for a dataset that states no answers."""
        if stream != "clean":
            raise ValueError(f"unknown stream {stream!r} of task {self.name}; known: clean")
        problems = self.problems("train", count, rng)
        if not all(problem.answer for problem in problems):
            raise ValueError(f"task {self.name} has no demonstrations: the dataset scores answers and states none")
        return [(problem.prompt, self.text.answer(problem.answer)) for problem in problems]

    def check(self, problem: Problem, response: Tokens) -> Check:
        """Errors: ValueError for a problem without the facts of this task."""
        if problem.facts is None:
            raise ValueError(f"task {self.name}: the problem has no facts to make its entry from")
        arguments = {"dataset": self.dataset, "config": self.config, "threshold": self.threshold, **problem.facts}
        return Check(
            function="opd_ops.tasks.generators:score_response", response=self.text.decode(response), arguments=arguments
        )

    def verify(self, problem: Problem, response: Tokens) -> float:
        return self.check(problem, response).run()

    def facts(self) -> dict[str, Any]:
        """What the tokens depend on besides the recipe."""
        return self.text.facts()

    def _problem(self, question: str, answer: str | None, seed: int, index: int) -> Problem:
        return Problem(
            prompt=self.text.ask(question),
            answer=answer or "",
            privileged=self.text.ask_with_solution(question, answer) if answer else None,
            facts={"seed": seed, "index": index},
        )


def _addresses(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(seed, index) of entries. Datasets key an entry by seed + index: seeds a block apart do not overlap."""
    while True:
        seed = int(rng.integers(2**22)) * generators.BLOCK
        for index in range(generators.BLOCK):
            yield seed, index


def _is_held_out(question: str) -> bool:
    return hashlib.sha256(question.encode()).digest()[0] % 8 == 0
