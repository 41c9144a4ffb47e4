"""JSON objects that carry the SHA-256 of what they say, so that a changed byte is found with nothing beside them.

    sha256 = SHA-256 of the canonical JSON (sorted keys, no spaces) of all fields but `sha256` and `provenance`

Provenance differs from one machine to the next and is no part of what an object says.
"""

import hashlib
import json
from typing import Any

from pipelines.store.json_object import JsonObject, parse_json, parse_object

FIELD = "sha256"
APART = (FIELD, "provenance")
REMEDY = "bring it back from a copy (opd import), or make the run again in another OPD_STORE"


def add_checksum(said: dict[str, Any]) -> dict[str, Any]:
    """The facts with their seal."""
    return said | {FIELD: _digest(json.loads(json.dumps(said)))}


def remove_checksum(data: bytes, key: str, remedy: str = REMEDY) -> JsonObject:
    """The facts of a sealed object, without the seal; facts without one, as earlier versions wrote, as they are.

    Errors: ValueError naming the object where it is no JSON object, or not what was sealed.
    """
    found = parse_object(data, key, remedy)
    seals = [FIELD] if FIELD in found else [name for name, value in found.items() if _is_seal(name, value, found)]
    if seals and (seals != [FIELD] or found[FIELD] != _digest(found)):
        raise ValueError(f"{key} is not what was written there; {remedy}")
    found.pop(FIELD, None)
    return found


def is_canonical(data: bytes) -> bool:
    """Whether an object that can be opened has no seal, or is spaced as everything with one is written."""
    found = parse_json(data)
    return FIELD not in found or data == (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()


def _is_seal(name: str, value: Any, found: dict[str, Any]) -> bool:
    """Whether a field is the seal of the others, though its name was changed."""
    if not isinstance(value, str) or len(value) != 64:
        return False
    return value == _digest({other: said for other, said in found.items() if other != name})


def _digest(found: dict[str, Any]) -> str:
    said = {name: value for name, value in found.items() if name not in APART}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
