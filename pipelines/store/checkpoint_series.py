"""The checkpoints of one training run, found under a folder or URI prefix by the steps in their names."""

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from pipelines.store.checkpoints import Incomplete, open_checkpoint
from pipelines.store.objects import Store, normalise

_STEP = re.compile(r"(?:(?:step|checkpoint|iter|global_step)[-_]?)?(\d+)", re.ASCII)
UNDERSTOOD = "step-100, step_100, checkpoint-100, iter_0000100, global_step100 and 100"


class Empty(ValueError):
    """A folder or prefix that holds no checkpoint yet."""


@dataclass(frozen=True)
class Series:
    """complete: (step, ref) in order of step. incomplete: (step, reason) of checkpoints that may still be written."""

    complete: tuple[tuple[int, str], ...]
    incomplete: tuple[tuple[int, str], ...]


def open_trajectory(prefix: str, besides: Container[int] = ()) -> Series:
    """The checkpoints directly under a folder or URI prefix, including step 0 if it exists.

    besides: steps to skip without opening them.

    Errors: Empty if there is no checkpoint. ValueError if two checkpoints have the same step, or if one is in a format
    that is not read (pickled, quantized, an adapter).
    """
    children = _children(prefix)
    complete, incomplete = [], []
    for step, ref in sorted(children.items()):
        if step in besides:
            continue
        try:
            complete.append((step, open_checkpoint(f"snapshot {step}", ref).ref))
        except Incomplete as error:
            incomplete.append((step, str(error)))
    return Series(tuple(complete), tuple(incomplete))


def _children(prefix: str) -> dict[int, str]:
    """Checkpoint URIs by step."""
    normalise(prefix)
    if ("://" not in prefix or prefix.startswith("file://")) and not _path(prefix).is_dir():
        raise ValueError(f"{prefix} is not a folder; name the folder or URI prefix that holds the checkpoints")
    store = Store(normalise(prefix))
    names: dict[int, str] = {}
    for name in store.list(""):
        if (match := _STEP.fullmatch(name)) and not (store.local and Path(store.path(name)).is_file()):
            step = int(match[1])
            if step in names:
                raise ValueError(
                    f"{names[step]} and {name} under {prefix} are both of step {step}; move one of them away"
                )
            names[step] = name
    if not names:
        raise Empty(f"{prefix} holds no checkpoint with its step in its name; understood are {UNDERSTOOD}")
    return {step: f"{store.uri}/{name}" for step, name in names.items()}


def _path(prefix: str) -> Path:
    return Path(prefix.removeprefix("file://")).expanduser()
