"""The generators of reasoning-gym: which are used, their entries by address, and their scores.

An entry's address is (dataset, config, seed, index), from which any process makes it again; the entries themselves
hold tuples, fractions and sets that JSON would change. Two kinds of generators are refused: those whose scorer
evaluates the answer, and those whose problems differ between two processes.
"""

import copy
import dataclasses
import difflib
import functools
import json
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from opd_ops.tasks.answers import final_answer

BLOCK = 256  # entries of one seed

_EVALUATES = "its scorer evaluates the answer as Python, and a verifier never executes model output"
_HASHES = "its problems depend on Python's hash seed, so that no run could be repeated"
REFUSED = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), _EVALUATES),
    # These do it through sympy.parse_expr, which is eval.
    **dict.fromkeys(("countdown", "puzzle24", "polynomial_multiplication"), _EVALUATES),
    **dict.fromkeys(("intermediate_integration", "simple_integration"), _EVALUATES),
    **dict.fromkeys(("isomorphic_strings", "knight_swap", "list_functions", "ransom_note", "word_ladder"), _HASHES),
    "codeio": "it makes its problems by executing code that a language model wrote",
    "composite": "it mixes other generators: name one of them",
}


def require_dataset(dataset: str, config: dict[str, Any]) -> None:
    """Errors: ValueError for an unknown or refused generator, an unknown option of it, or a value it refuses."""
    if dataset in REFUSED:
        raise ValueError(f"the reasoning-gym dataset {dataset!r} is refused: {REFUSED[dataset]}")
    if dataset not in DATASETS:
        known = [name for name in sorted(DATASETS) if name not in REFUSED]
        near = difflib.get_close_matches(dataset, known, n=3, cutoff=0.5)
        names = f"near it: {', '.join(near)}" if near else f"known: {', '.join(known)}"
        raise ValueError(f"reasoning-gym has no dataset {dataset!r}; {names}")
    fields = {field.name for field in dataclasses.fields(DATASETS[dataset][1])} - {"seed", "size"}
    if unknown := sorted(config.keys() - fields):
        raise ValueError(
            f"the reasoning-gym dataset {dataset!r} has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(fields)) or 'none'}"
        )
    try:
        _make_generator(dataset, json.dumps(config, sort_keys=True), 0)
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"the reasoning-gym dataset {dataset!r} refuses {config}: {error}") from error


def make_entry(dataset: str, config: dict[str, Any], seed: int, index: int) -> dict[str, Any]:
    """The entry (question, answer, metadata) at an address, 0 <= index < BLOCK. It is cached: do not change it."""
    return _make_entry(dataset, json.dumps(config, sort_keys=True), seed, index)


def score_response(
    response: str, dataset: str, config: dict[str, Any], seed: int, index: int, threshold: float
) -> float:
    """1.0 if the dataset gives the response's final answer at least `threshold`, else 0.0.

    A scorer raises when it cannot read an answer, which then earns 0.0.
    """
    text = json.dumps(config, sort_keys=True)
    wanted = copy.deepcopy(_make_entry(dataset, text, seed, index))
    try:
        value = _make_generator(dataset, text, seed).score_answer(final_answer(response), wanted)
    except Exception:
        return 0.0
    return float(value is not None and value >= threshold)


@functools.lru_cache(maxsize=8)
def _make_generator(dataset: str, config: str, seed: int) -> Any:
    return reasoning_gym.create_dataset(dataset, seed=seed, size=BLOCK, **json.loads(config))


@functools.lru_cache(maxsize=4096)
def _make_entry(dataset: str, config: str, seed: int, index: int) -> dict[str, Any]:
    return _make_generator(dataset, config, seed)[index]
