"""Checks the fields of a snapshot's manifest before anything is read or allocated because of them.

The checksum proves that a manifest was not changed, not that it is consistent. This module checks that files are names
in the snapshot's own folder, ranges lie in these files, plain tensors have the length of their shape and dtype, and
encoded tensors have a base.
"""

import math
from collections.abc import Iterator
from typing import Any

from pipelines.store.json_object import is_count
from pipelines.store.names import LONGEST, has_control_characters, repr_short, stays_inside
from pipelines.store.payload import WEIGHTS
from pipelines.store.tensors import DIMENSIONS, HALF, ITEMSIZE

_FIRST = {"layout", "step", "parent", "files", "tensors"}
_LATER = _FIRST | {"digest", "base", "deltas"}
FIELDS = {1: _FIRST, 2: _LATER, 3: _LATER}  # by layout
PRECISION = {"kept", "bound"}  # additional fields of a manifest whose tensors are bf16 updates
PLACE = {"file", "begin", "end"}
WHOLE = PLACE | {"dtype", "shape"}  # fields of a plain tensor


def explain_malformed(manifest: dict[str, Any]) -> str:
    """The first inconsistency of a manifest whose layout is in FIELDS, in words; empty if there is none."""
    precision = PRECISION if "kept" in manifest and manifest["layout"] > 1 else set()
    if wrong := sorted(manifest.keys() ^ (FIELDS[manifest["layout"]] | precision)):
        return f"has an unknown field or lacks one: {', '.join(map(repr_short, wrong))}"
    try:
        return next((f"has an impossible {what}" for what, fits in _parts(manifest) if not fits), "")
    except (LookupError, TypeError, AttributeError) as error:
        return f"is no manifest ({type(error).__name__}: {repr_short(str(error))})"


def _parts(manifest: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yields (name of a part, whether it is consistent) for every part of a manifest."""
    from pipelines.store import codec

    # Additional fields of an encoded tensor, by its code.
    codes = {HALF: {"code"}, codec.DELTA: {"code"}, codec.UPDATE: {"code", "error", "view"}}
    files, base, halves = manifest["files"], manifest.get("base"), False
    yield "step", is_count(manifest["step"])
    yield "parent", manifest["parent"] is None or is_count(manifest["parent"])
    yield "list of files", isinstance(files, dict) and WEIGHTS in files
    for name, facts in files.items():
        yield (
            f"file {repr_short(name)}",
            "/" not in name and stays_inside(name) and is_count(facts["size"]) and _sha(facts["sha256"]),
        )
    for name, tensor in manifest["tensors"].items():
        what, code = f"tensor {repr_short(name)}", tensor.get("code")
        coded, half = codes.get(code, set()), code == HALF
        halves |= half
        fits = tensor["dtype"] == "F32" and manifest["layout"] > 2 if half else bool(base) and bool(coded)
        yield f"code of {what}", "code" not in tensor or fits
        yield what, tensor.keys() == WHOLE | coded and len(name) <= LONGEST and not has_control_characters(name)
        yield f"shape of {what}", _shape(tensor["shape"]) and tensor["dtype"] in ITEMSIZE
        yield f"place of {what}", _lies_in_file(tensor, files)
        size = math.prod(tensor["shape"]) * ITEMSIZE["BF16" if half else tensor["dtype"]]
        yield f"length of {what}", (bool(coded) and not half) or tensor["end"] - tensor["begin"] == size
        if "view" in tensor:
            yield f"view of {what}", tensor["view"].keys() == PLACE | {"code"} and _lies_in_file(tensor["view"], files)
            yield f"view of {what}", tensor["view"]["code"] == codec.DELTA and tensor["dtype"] == "F32"
    if manifest["layout"] > 1:
        yield "base", base is None or (is_count(base["step"]) and base["step"] != manifest["step"])
        yield "base", base is None or _sha(base["digest"])
        yield "number of deltas", is_count(manifest["deltas"])
        plain = base is None and not halves
        yield "digest", manifest["digest"] == files[WEIGHTS]["sha256"] if plain else _sha(manifest["digest"])


def _lies_in_file(place: dict[str, Any], files: dict[str, Any]) -> bool:
    """Whether a byte range lies in a file of the snapshot."""
    begin, end = place["begin"], place["end"]
    return is_count(begin) and is_count(end) and place["file"] in files and begin <= end <= files[place["file"]]["size"]


def _shape(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) <= DIMENSIONS and all(map(is_count, shape))


def _sha(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and value.isascii()
