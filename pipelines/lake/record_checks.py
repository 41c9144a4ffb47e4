"""Whether the file of a table is the one that the record of an import was written for."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.lake.lake import read_object
from pipelines.lake.schemas import TABLES

SHA256 = "sha256"


def find_disagreement(table: str, data: bytes, made: Mapping[str, Any]) -> str:
    """Why a table's file is not the one of its record, in words that go on from its name; empty where it is.

    made: what the record says of the table. Records of earlier versions name no SHA-256: there the steps of the rows
    must be those of the record.
    """
    if SHA256 in made:
        return "" if hashlib.sha256(data).hexdigest() == made[SHA256] else "is not the file that its record names"
    try:
        rows = read_object(data, TABLES[table])
    except ValueError as error:
        return str(error)
    steps = {str(step) for name in ("step", "step_other") if name in rows.columns for step in rows[name].drop_nulls()}
    if steps and steps != set(made["steps"]):
        return f"holds steps {_listed(steps)}, and its record names {_listed(made['steps'])}"
    return ""


def _listed(steps: Any) -> str:
    return ", ".join(map(str, sorted(map(int, steps)))) or "none"
