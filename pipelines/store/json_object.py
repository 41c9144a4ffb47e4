"""JSON as it is read from a store: UTF-8, every key once, nested DEPTH deep at most.

json takes the last of two equal keys, which another reader may not, and fails by recursion on a few kilobytes of
brackets; what it fails with names no object.
"""

import json
import re
from itertools import accumulate
from typing import Any, TypeGuard

from pipelines.store.names import repr_short

DEPTH = 100
_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class JsonObject(dict[str, Any]):
    """The fields of one JSON object; asking for one that is absent is a ValueError that names the object."""

    def __init__(self, fields: dict[str, Any], key: str, remedy: str) -> None:
        super().__init__(fields)
        self.key, self.remedy = key, remedy

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.key} lacks {name!r}; {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonObject, (dict(self), self.key, self.remedy)

    def require(self, kinds: dict[str, type]) -> "JsonObject":
        """Itself. Errors: ValueError naming the object and the first field that is there and of another kind."""
        for name, kind in kinds.items():
            if name in self and (not isinstance(self[name], kind) or isinstance(self[name], bool)):
                raise ValueError(
                    f"{self.key} has {name} {repr_short(self[name])}, which is no {kind.__name__}; {self.remedy}"
                )
        return self


def parse_json(data: bytes) -> Any:
    """What the bytes of a JSON document say. Errors: ValueError in one line that says why they are none."""
    if _depth(data) > DEPTH and _depth(_STRING.sub(b"", data)) > DEPTH:
        raise ValueError(f"nested more than {DEPTH} deep")
    return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_reject_repeated_keys)


def parse_object(data: bytes, key: str, remedy: str) -> JsonObject:
    """The fields of a JSON object. Errors: ValueError naming the object where it is none."""
    try:
        found = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{key} is not JSON ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not a JSON object; {remedy}")
    return JsonObject(found, key, remedy)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number from 0 that other programs can hold, too."""
    return type(value) is int and 0 <= value < 2**63


def _depth(data: bytes) -> int:
    """How deep brackets are nested, those in strings counted."""
    steps = (1 if bracket in b"[{" else -1 for bracket in data.translate(None, _BRACKETS))
    return max(accumulate(steps), default=0)


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {repr_short(next(name for name in names if names.count(name) > 1))} stands twice")
    return found
