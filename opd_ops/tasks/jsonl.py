"""A JSONL file of prompts and answers as a task, in the shapes of GSM8K and dapo-math-17k (`examples.py`).

The reward is that of the final answer, compared as mathematics or character by character. Streams:

    clean    the file's worked solutions, or its answers where it has none
"""

import hashlib
import json
from typing import Any, Literal

import numpy as np

from opd_ops.outside import is_reference
from opd_ops.tasks.examples import Example, read_examples
from opd_ops.tasks.prompts import answer_marks, is_composed
from opd_ops.tasks.task import Check, Problem, Split, Tokens
from opd_ops.tasks.text import INSTRUCTION, Eos, Text

VERIFIERS = {"math": "opd_ops.tasks.mathematics:verify_math", "exact": "opd_ops.tasks.answers:verify_exact"}


class Jsonl:
    """The examples of the file at `path`.

    prompt, answer: the fields to read, for a file of no known shape. prompt may also be a template of fields or a
    function (`prompts.py`), which then makes the whole prompt, and within a chat template the whole message.
    response: a template or function for the demonstrated text, in which `answer` is the final answer and `solution` the
    worked text; the text around {answer} also marks the final answer of a response. held_out: hold out one in that
    many, by a hash of the prompt, or the path of a file with the held-out examples, which are taken out of the training
    ones. verifier: `math` (math-verify) or `exact`. The other options are those of `Text`.
    Errors: ValueError for what `read_examples` and `Text` refuse, and for a split without an example.
    """

    paths, functions = ("path", "held_out"), ("prompt", "response")  # options that may name files and functions

    def __init__(
        self,
        folder: str,
        path: str,
        prompt: str | None = None,
        answer: str | None = None,
        held_out: int | str = 8,
        verifier: Literal["math", "exact"] = "math",
        eos: Eos = None,
        template: bool = False,
        instruction: str | None = None,
        response: str | None = None,
    ) -> None:
        if verifier not in VERIFIERS:
            raise ValueError(f"task jsonl has no verifier {verifier!r}; known: {', '.join(VERIFIERS)}")
        self.verifier, self.instant = verifier, verifier == "exact"
        self.name = f"jsonl ({path})"
        whole = prompt is not None and is_composed(prompt)
        if instruction is None:
            instruction = "" if whole else INSTRUCTION
        self.text = Text(folder, eos, template, instruction, whole)
        self.pad, self.eos, self.stops = self.text.pad, self.text.eos, self.text.stops
        self.marks: dict[str, str] = {}  # arguments of the verifier
        if response and "{" in response:
            named = zip(("mark", "tail"), answer_marks(response), strict=True)
            self.marks = {name: text for name, text in named if text}
        self.examples, self.digest, self.contradictory = read_splits(path, held_out, prompt, answer, response)
        # What a function makes of the file is no option: its digest says when it has changed.
        by_function = [text for text in (prompt, response) if text and is_reference(text) and "{" not in text]
        self.composed = {"composed": _texts_digest(self.examples)} if by_function else {}
        for name, examples in self.examples.items():
            if not examples:
                raise ValueError(
                    f"task {self.name} has no {name} example: give it a longer file, or name a file with held_out"
                )

    @staticmethod
    def outline(
        path: str,
        held_out: int | str = 8,
        prompt: str | None = None,
        answer: str | None = None,
        response: str | None = None,
        **_: Any,
    ) -> str:
        """One line on how many examples of the file are held out. Errors: as `read_examples`."""
        examples, _digest, _contradictory = read_splits(path, held_out, prompt, answer, response)
        return f"{path}: {_describe_shares(examples)}"

    def problems(self, split: Split, count: int, rng: np.random.Generator) -> list[Problem]:
        examples = self.examples[split]
        if count > len(examples):
            more = " (evaluation.problems), or hold out more (the option held_out)" if split == "held_out" else ""
            raise ValueError(
                f"task {self.name} has {len(examples)} {split} examples, and {count} were asked for, with "
                f"{_describe_shares(self.examples)}: ask for {len(examples)} at most{more}"
            )
        return [self._problem(examples[i]) for i in rng.choice(len(examples), count, replace=False)]

    def demonstrations(self, stream: str, count: int, rng: np.random.Generator) -> list[tuple[Tokens, Tokens]]:
        """Errors: ValueError for an unknown stream. Examples repeat where `count` exceeds their number."""
        if stream != "clean":
            raise ValueError(f"unknown stream {stream!r} of task {self.name}; known: clean")
        train = self.examples["train"]
        chosen = rng.choice(len(train), count, replace=count > len(train))
        return [(self.text.ask(e.question), self._demonstration(e)) for e in (train[i] for i in chosen)]

    def check(self, problem: Problem, response: Tokens) -> Check:
        return Check(
            function=VERIFIERS[self.verifier],
            response=self.text.decode(response),
            arguments={"gold": problem.answer, **self.marks},
        )

    def verify(self, problem: Problem, response: Tokens) -> float:
        return self.check(problem, response).run()

    def facts(self) -> dict[str, Any]:
        """What the problems and tokens depend on besides the recipe: the file's digest among them."""
        return {**self.text.facts(), "data": self.digest, **self.composed}

    def _problem(self, example: Example) -> Problem:
        return Problem(
            prompt=self.text.ask(example.question),
            answer=example.answer,
            privileged=self.text.ask_with_solution(
                example.question, example.solution or example.answer, example.response
            ),
        )

    def _demonstration(self, example: Example) -> Tokens:
        solution = example.solution or example.answer
        return self.text.answer(solution, marked=example.solution is not None, response=example.response)


def read_splits(
    path: str, held_out: int | str, prompt: str | None, answer: str | None, response: str | None
) -> tuple[dict[str, list[Example]], str, int]:
    """Examples by split, the digest of the files, and how many contradictory prompts were left out.

    Errors: ValueError as `read_examples`, and for a share of the held-out examples that is none.
    """
    if not isinstance(held_out, str) and held_out < 2:
        raise ValueError(f"task jsonl: held_out is 2 or more, one in that many, or a path; not {held_out}")
    train = read_examples(path, prompt, answer, response)
    if not isinstance(held_out, str):
        splits: dict[str, list[Example]] = {"train": [], "held_out": []}
        for example in train.examples:
            splits["held_out" if _is_held_out(example.question, held_out) else "train"].append(example)
        return splits, train.digest, train.contradictory
    other = read_examples(held_out, prompt, answer, response)
    held_out_questions = {example.question for example in other.examples}
    splits = {"train": [e for e in train.examples if e.question not in held_out_questions], "held_out": other.examples}
    digest = hashlib.sha256(f"{train.digest} {other.digest}".encode()).hexdigest()
    return splits, digest, train.contradictory + other.contradictory


def _texts_digest(splits: dict[str, list[Example]]) -> str:
    """SHA-256 over the prompts and responses of all examples."""
    texts = [[name, example.question, example.response] for name, split in splits.items() for example in split]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _describe_shares(splits: dict[str, list[Example]]) -> str:
    return f"{len(splits['held_out'])} of {sum(map(len, splits.values()))} held out"


def _is_held_out(question: str, one_in: int) -> bool:
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % one_in == 0
