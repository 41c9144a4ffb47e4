"""Prompts and answers of a JSONL file, in one of three shapes:

    GSM8K          {"question": "...", "answer": "worked solution #### 42"}
    dapo-math-17k  {"prompt": "..." or [{"role": "user", "content": "..."}], "label": "34"},
                   or "reward_model": {"ground_truth": "34"} instead of the label
    named          the fields that the caller names, or a template or function of fields (`prompts.py`)

A repeated prompt counts once. A prompt with different answers is left out and counted as contradictory.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opd_ops.tasks.prompts import is_composed, look_up, make_composer

Compose = Callable[[dict[str, Any]], str]
QUESTIONS = ("question", "prompt", "problem")
ANSWERS = ("label", "reward_model.ground_truth", "answer")
SEPARATOR = "####"


@dataclass(frozen=True, kw_only=True)
class Example:
    """solution: the worked text that ends in the answer, where the file has one.

    response: the text that demonstrates it, where the caller sets one.
    """

    question: str
    answer: str
    solution: str | None
    response: str | None = None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A file's examples in its order. digest: SHA-256 of its bytes. contradictory: prompts left out."""

    examples: list[Example]
    digest: str
    contradictory: int


def read_examples(
    path: str, prompt: str | None = None, answer: str | None = None, response: str | None = None
) -> Examples:
    """The examples of a file. prompt, answer: the fields to read, for a file of no known shape.

    prompt may be a template or a function of fields, and response is one, in which `answer` is the final answer and
    `solution` the worked text, or the answer where there is none.
    Errors: ValueError naming a line that is no example; ValueError for a file that is absent or has no example.
    """
    digest, by_question, contradictory = hashlib.sha256(), dict[str, Example](), set[str]()
    ask = make_composer("prompt", prompt) if prompt and is_composed(prompt) else None
    respond = make_composer("response", response) if response else None
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                if line.strip():
                    example = _parse_example(line, f"{path} line {number}", prompt, answer, ask, respond)
                    known = by_question.setdefault(example.question, example)
                    if known.answer != example.answer:
                        contradictory.add(example.question)
    except OSError as error:
        raise ValueError(f"the file of examples {path} cannot be read: {error.strerror}") from error
    examples = [example for question, example in by_question.items() if question not in contradictory]
    if not examples:
        raise ValueError(f"the file of examples {path} has no example: give it one JSON object a line")
    return Examples(examples=examples, digest=digest.hexdigest(), contradictory=len(contradictory))


def _parse_example(
    line: bytes, where: str, prompt: str | None, answer: str | None, ask: Compose | None, respond: Compose | None
) -> Example:
    excerpt = line.decode(errors="replace").strip()
    excerpt = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in excerpt[:80]) + "..." * (
        len(excerpt) > 80
    )
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}; write one JSON object a line; it reads {excerpt}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object; it reads {excerpt}")
    question = (
        _compose(ask, row, where) if ask else _first_text(row, (prompt,) if prompt else QUESTIONS, _read_question)
    )
    stated = _first_text(row, (answer,) if answer else ANSWERS, _read_answer)
    if not question or not stated:
        missing = f"no prompt in {prompt or ', '.join(QUESTIONS)}" if not question else ""
        missing = missing or f"no answer in {answer or ', '.join(ANSWERS)}"
        raise ValueError(
            f"{where} has {missing}: name the field with the options prompt and answer; it reads {excerpt}"
        )
    solution, separator, gold = stated.rpartition(SEPARATOR)
    if separator and not gold.strip():
        raise ValueError(f"{where} has nothing behind {SEPARATOR}; it reads {excerpt}")
    gold, worked = gold.strip(), stated if solution.strip() else None
    written = _compose(respond, row | {"answer": gold, "solution": worked or gold}, where) if respond else None
    return Example(question=question, answer=gold, solution=worked, response=written)


def _compose(compose: Compose, row: dict[str, Any], where: str) -> str:
    try:
        return compose(row)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error


def _first_text(row: dict[str, Any], fields: tuple[str, ...], read: Any) -> str:
    for field in fields:
        if text := read(look_up(row, field)):
            return text
    return ""


def _read_question(value: Any) -> str:
    """A string, or the messages of a conversation: one user message, after at most one system message."""
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        return ""
    if [message.get("role") for message in value if message.get("role") != "system"] != ["user"]:
        return ""
    return "\n\n".join(str(message.get("content") or "").strip() for message in value).strip()


def _read_answer(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
