"""Checks a table's file against the record of the import that wrote it."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.lake.lake import read_object
from pipelines.lake.schemas import TABLES

SHA256 = "sha256"


def find_disagreement(table: str, data: bytes, record: Mapping[str, Any]) -> str:
    """Why a table's file does not match its record, or "". The message completes "<key> <message>".

    record: its entry for the table. Records of earlier versions have no SHA-256; then the steps of
    the rows must equal those of the record.
    """
    if SHA256 in record:
        return "" if hashlib.sha256(data).hexdigest() == record[SHA256] else "is not the file that its record names"
    try:
        rows = read_object(data, TABLES[table])
    except ValueError as error:
        return str(error)
    steps = {str(step) for name in ("step", "step_other") if name in rows.columns for step in rows[name].drop_nulls()}
    if steps and steps != set(record["steps"]):
        return f"holds steps {_listed(steps)}, and its record names {_listed(record['steps'])}"
    return ""


def _listed(steps: Any) -> str:
    return ", ".join(map(str, sorted(map(int, steps)))) or "none"
