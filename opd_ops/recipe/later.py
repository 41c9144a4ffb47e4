"""Fields that recipes gained after runs had been stored: left out of the identity at their defaults."""

import dataclasses
from typing import Any

# Metadata of a field whose default describes every run that was completed before the field existed.
LATER = {"later": True}


def plain(value: Any) -> Any:
    """A recipe's part as plain types, without later fields at their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("later") and getattr(value, field.name) == field.default)
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
