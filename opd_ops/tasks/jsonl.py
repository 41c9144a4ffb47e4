"""A JSONL file of prompts and answers as a task, in the shapes of GSM8K and dapo-math-17k (`examples.py`).

The reward is that of the final answer, compared as mathematics or character by character. Streams:

    clean    the file's worked solutions, or its answers where it has none
"""

import hashlib
from typing import Any, Literal

import numpy as np

from opd_ops.tasks.examples import Example, read
from opd_ops.tasks.task import Check, Problem, Split, Tokens
from opd_ops.tasks.text import INSTRUCTION, Text

VERIFIERS = {"math": "opd_ops.tasks.mathematics:verify_math", "exact": "opd_ops.tasks.answers:verify_exact"}


class Jsonl:
    """The examples of the file at `path`.

    prompt, answer: the fields, where they are not those of a known shape. held_out: hold out one in that many, by a
    hash of the prompt, or the path of a file with the held-out examples, which are taken out of the training ones.
    verifier: `math` (math-verify) or `exact`. The other options are those of `Text`.
    Errors: ValueError for what `read` and `Text` refuse, and for a split without an example.
    """

    paths = ("path", "held_out")

    def __init__(
        self,
        folder: str,
        path: str,
        prompt: str | None = None,
        answer: str | None = None,
        held_out: int | str = 8,
        verifier: Literal["math", "exact"] = "math",
        eos: str | None = None,
        template: bool = False,
        instruction: str = INSTRUCTION,
    ) -> None:
        if verifier not in VERIFIERS:
            raise ValueError(f"task jsonl has no verifier {verifier!r}; known: {', '.join(VERIFIERS)}")
        if not isinstance(held_out, str) and held_out < 2:
            raise ValueError(f"task jsonl: held_out is 2 or more, one in that many, or a path; not {held_out}")
        self.verifier, self.instant = verifier, verifier == "exact"
        self.name = f"jsonl ({path})"
        self.text = Text(folder, eos, template, instruction)
        self.pad, self.eos = self.text.pad, self.text.eos
        train = read(path, prompt, answer)
        self.digest = train.digest
        self.contradictory = train.contradictory
        if isinstance(held_out, str):
            other = read(held_out, prompt, answer)
            self.digest = hashlib.sha256(f"{train.digest} {other.digest}".encode()).hexdigest()
            self.contradictory += other.contradictory
            taken = {example.question for example in other.examples}
            split = {"train": [e for e in train.examples if e.question not in taken], "held_out": other.examples}
        else:
            split = {
                "train": [e for e in train.examples if not _held_out(e.question, held_out)],
                "held_out": [e for e in train.examples if _held_out(e.question, held_out)],
            }
        self.examples: dict[str, list[Example]] = split
        for name, examples in split.items():
            if not examples:
                raise ValueError(
                    f"task {self.name} has no {name} example: give it a longer file, or name a file with held_out"
                )

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        examples = self.examples[split]
        if count > len(examples):
            raise ValueError(
                f"task {self.name} has {len(examples)} {split} examples, and {count} were asked for: ask for fewer"
            )
        return [self._problem(examples[i]) for i in rng.choice(len(examples), count, replace=False)]

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        """Errors: ValueError for an unknown stream. An example is shown again where `count` exceeds them."""
        if stream != "clean":
            raise ValueError(f"unknown stream {stream!r} of task {self.name}; known: clean")
        train = self.examples["train"]
        chosen = rng.choice(len(train), count, replace=count > len(train))
        return [(self.text.ask(e.question), self._stated(e)) for e in (train[i] for i in chosen)]

    def check(self, problem: Problem, response: Tokens) -> Check:
        return Check(
            function=VERIFIERS[self.verifier],
            response=self.text.decode(response),
            arguments={"gold": problem.answer},
        )

    def verify(self, problem: Problem, response: Tokens) -> float:
        return self.check(problem, response).run()

    def facts(self) -> dict[str, Any]:
        """What the problems and tokens depend on besides the recipe: the file's digest among them."""
        return {**self.text.facts(), "data": self.digest}

    def _problem(self, example: Example) -> Problem:
        return Problem(
            prompt=self.text.ask(example.question),
            answer=example.answer,
            privileged=self.text.tell(example.question, example.solution or example.answer),
        )

    def _stated(self, example: Example) -> Tokens:
        return self.text.answer(example.solution or example.answer, marked=example.solution is not None)


def _held_out(question: str, one_in: int) -> bool:
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % one_in == 0
