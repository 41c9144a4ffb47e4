"""Reads JSON from a store: UTF-8, no repeated keys, errors that name the object.

Python's `json` silently takes the last of two equal keys; other readers may take the first.
"""

import json
from typing import Any, TypeGuard

from pipelines.store.names import repr_short


class JsonObject(dict[str, Any]):
    """The fields of one JSON object. Indexing an absent field raises a ValueError that names the object."""

    def __init__(self, fields: dict[str, Any], key: str, remedy: str) -> None:
        super().__init__(fields)
        self.key, self.remedy = key, remedy

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.key} lacks {name!r}; {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonObject, (dict(self), self.key, self.remedy)

    def require(self, kinds: dict[str, type]) -> "JsonObject":
        """Returns self. Errors: ValueError that names the first present field whose type is not the required one."""
        for name, kind in kinds.items():
            if name in self and (not isinstance(self[name], kind) or isinstance(self[name], bool)):
                raise ValueError(
                    f"{self.key} has {name} {repr_short(self[name])}, which is no {kind.__name__}; {self.remedy}"
                )
        return self


def parse_json(data: bytes) -> Any:
    """The value of a JSON document. Errors: ValueError in one line with the reason if the bytes are not JSON."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_reject_repeated_keys)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_object(data: bytes, key: str, remedy: str) -> JsonObject:
    """The fields of a JSON object. Errors: ValueError with the key if the data is no JSON object."""
    try:
        fields = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{key} is not JSON ({error}); {remedy}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{key} is not a JSON object; {remedy}")
    return JsonObject(fields, key, remedy)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is an integer from 0 that fits into 63 bits."""
    return type(value) is int and 0 <= value < 2**63


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {repr_short(next(name for name in names if names.count(name) > 1))} stands twice")
    return fields
