"""JSON objects with a SHA-256 checksum of their own fields, so that a changed byte is detected without a second file.

    sha256 = SHA-256 of the canonical JSON (sorted keys, no spaces) of all fields but `sha256` and `provenance`

Provenance differs between machines and is left out of the checksum.
"""

import hashlib
import json
from typing import Any

from pipelines.store.json_object import JsonObject, parse_json, parse_object

FIELD = "sha256"
EXCLUDED = (FIELD, "provenance")
REMEDY = "bring it back from a copy (opd import), or make the run again in another OPD_STORE"


def add_checksum(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with their checksum."""
    return fields | {FIELD: _digest(json.loads(json.dumps(fields)))}


def remove_checksum(data: bytes, key: str, remedy: str = REMEDY, marker: str | None = None) -> JsonObject:
    """The fields of an object after its checksum is verified and removed.

    Objects of earlier versions have no checksum and are returned as they are. marker: a field that only objects with a
    checksum have. Errors: ValueError with the key if the data is no JSON object or does not match its checksum.
    """
    fields = parse_object(data, key, remedy)
    if (FIELD in fields or marker in fields) and fields.pop(FIELD, None) != _digest(fields):
        raise ValueError(f"{key} is not what was written there; {remedy}")
    return fields


def is_canonical(data: bytes) -> bool:
    """Whether a valid object has no checksum, or has exactly the whitespace that this project writes."""
    fields = parse_json(data)
    return FIELD not in fields or data == (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()


def _digest(fields: dict[str, Any]) -> str:
    checked = {name: value for name, value in fields.items() if name not in EXCLUDED}
    return hashlib.sha256(json.dumps(checked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
