"""Pairs the comparable weights of two checkpoints and explains which weights are left out."""

from dataclasses import dataclass

from opd_ops.roles import PROJECTIONS
from pipelines.store.checkpoints import Checkpoint
from pipelines.store.matrices import matrices
from pipelines.store.matrix import MatrixRef
from pipelines.store.names import repr_short

NAMED = 5  # weights that a note names
VOCABULARY = ("embed", "head")  # roles whose rows are tokens
PREFIXES = ("model.", "transformer.", "gpt_neox.", "module.", "_orig_mod.")
REMEDY = "give the base these snapshots were trained from"

Matrices = dict[str, MatrixRef]


@dataclass(frozen=True)
class Pairing:
    """Comparable weights by their name in the base. notes: one line for each weight that is left out or cut."""

    pairs: dict[str, tuple[MatrixRef, MatrixRef]]
    notes: tuple[str, ...]


def pair(base: Checkpoint, other: Checkpoint) -> Pairing:
    """The comparable weights of two checkpoints; their float dtypes may differ.

    Errors: ValueError with the first tensor and both shapes if projections differ in shape or nothing is comparable;
    ValueError with the first token if the tokenizers differ other than by tokens added at the end; as `matrices`.
    """
    require_same_tokens(base, other)
    start, end = matrices(base), matrices(other)
    notes = _without_tied_heads(base, start, other, end)
    names = _names(base, start, other, end, notes)
    pairs: dict[str, tuple[MatrixRef, MatrixRef]] = {}
    for name, twin in names.items():
        before, after = start[name], end[twin]
        if before.shape == after.shape:
            pairs[name] = (before, after)
        elif _differ_in_length(before, after):
            count = min(before.shape[0], after.shape[0])
            pairs[name] = (before.read_first_rows(count), after.read_first_rows(count))
            notes.append(f"{name}: {before.shape[0]} -> {after.shape[0]} rows; the {count} common rows are measured")
        elif before.role in (*PROJECTIONS, *VOCABULARY):
            raise ValueError(
                f"tensor {after.source} has shape {after.shape} in {other} and {before.shape} in {base}; {REMEDY}"
            )
        else:
            notes.append(f"{name}: shape {before.shape} -> {after.shape}; left out")
    if not any(len(before.shape) == 2 for before, _ in pairs.values()):
        before, after = _first(start), _first(end)
        raise ValueError(
            f"nothing is comparable: {base} has tensor {before.source} {before.shape} and {other} has "
            f"{after.source} {after.shape}; {REMEDY}"
        )
    for checkpoint, only in ((base, start.keys() - names.keys()), (other, end.keys() - set(names.values()))):
        if only:
            notes.append(f"only in {checkpoint.who}: {_join_names(sorted(only))}")
    return Pairing(pairs, tuple(notes))


def require_same_tokens(base: Checkpoint, other: Checkpoint) -> None:
    """Errors: ValueError with the first token that differs; tokens added after all others may differ."""
    before, after = base.vocabulary, other.vocabulary
    if before is None or after is None or before == after:
        return
    both = before | after
    last = [max(vocabulary.values(), default=-1) for vocabulary in (before, after)]
    differing = [
        token
        for token in both
        if before.get(token) != after.get(token)
        and not (token not in before and after[token] > last[0])
        and not (token not in after and before[token] > last[1])
    ]
    if not differing:
        return
    token = min(differing, key=lambda token: (both[token], token))
    ids = [f"id {vocabulary[token]}" if token in vocabulary else "no id" for vocabulary in (before, after)]
    which = f"token {repr_short(token)} has {ids[0]} in {base} and {ids[1]} in {other}"
    raise ValueError(f"tokenizers differ: {which}; {REMEDY}")


def _without_tied_heads(base: Checkpoint, start: Matrices, other: Checkpoint, end: Matrices) -> list[str]:
    """Drop the head from both if it is tied to the embedding or absent in each; returns the notes on it."""
    sides = ((base, start), (other, end))
    if not all(side.head is None or side.tied for side, _ in sides):
        return []
    tied = [side for side, _ in sides if side.tied]
    if not tied:
        return []
    head = next((side.head.name for side, _ in sides if side.head), "lm_head.weight").removesuffix(".weight")
    for side, weights in sides:
        if side.head:
            del weights[side.head.name.removesuffix(".weight")]
    embedding = tied[0].embedding
    assert embedding is not None
    return [f"{head} is tied to {embedding.name.removesuffix('.weight')}: measured once"]


def _names(base: Checkpoint, start: Matrices, other: Checkpoint, end: Matrices, notes: list[str]) -> dict[str, str]:
    """Names in the other checkpoint by name in the base. One of both may have been saved inside a wrapper module."""
    names = {name: name for name in start if name in end}
    for prefix in PREFIXES:
        longer = {name: prefix + name for name in start if prefix + name in end}
        shorter = {prefix + name: name for name in end if prefix + name in start}
        for renamed, bare, full in ((longer, base, other), (shorter, other, base)):
            if len(renamed) > len(names):
                equal = {name: name for name in names if name not in renamed and name not in renamed.values()}
                names = renamed | equal
                notes.append(
                    f"names in {full.who} begin with {prefix!r}, those in {bare.who} do not: taken as the same"
                )
    return names


def _differ_in_length(before: MatrixRef, after: MatrixRef) -> bool:
    """Whether both are vocabulary weights that differ only in their number of rows."""
    tokens = before.role == after.role and before.role in VOCABULARY
    return tokens and len(before.shape) == len(after.shape) == 2 and before.shape[1] == after.shape[1]


def _first(weights: Matrices) -> MatrixRef:
    return next((matrix for matrix in weights.values() if len(matrix.shape) == 2), next(iter(weights.values())))


def _join_names(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" ... and {rest} more" if rest > 0 else "")
