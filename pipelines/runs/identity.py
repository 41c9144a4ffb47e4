"""Whether a stored run is of a recipe: equal in all fields except the locations of files with equal contents.

A recipe names weights and data by location, and run.json records their digests (`inputs`). A run continues under the
identity that it began with, wherever the same contents lie now.
"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from opd_ops.outside import split_file
from opd_ops.recipe import Recipe, Weights, fingerprint
from opd_ops.tasks import registry
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

# Fields of an identity that name a place, and the input that is the digest of what lies there.
PLACES = {
    ("start", "ref"): "start",
    ("objective", "teacher", "ref"): "teacher",
    ("objective", "opd", "teacher", "ref"): "teacher",
    ("constraint", "basis", "path"): "basis",
}

_facts: dict[str, dict[str, Any]] = {}  # of tasks, by their options and the state of their files


def stored_as(stored: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], str]:
    """Identity and fingerprint under which a recipe continues the stored run.

    They are those of run.json if only locations differ. Otherwise the fingerprint is the recipe's own, and the identity
    has the stored locations, so that an error names the other differences only.
    """
    identity = recipe.identity()
    if stored["fingerprint"] == recipe.fingerprint():
        return identity, stored["fingerprint"]
    moved = json.loads(json.dumps(identity))
    options = {("task", "options", name): "task" for name in registry.path_options(recipe.task)}
    for path, name in (PLACES | options).items():
        if name in stored["inputs"]:
            _set_text(moved, path, stored["identity"])
    if moved != identity and fingerprint(moved) == stored["fingerprint"]:
        return moved, stored["fingerprint"]
    return moved, recipe.fingerprint()


def require_same_contents(store: Store, recipe: Recipe, seed: int) -> None:
    """Check that weights and data at the recipe's locations are those that a registered run was made from.

    Absent files, and weights that would be downloaded, are not compared. Errors: OtherInputs, in one line.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    inputs = trajectory.run()["inputs"]
    present = {name: value for name, value in _contents(store, recipe, seed) if name in inputs}
    trajectory.require_inputs({name: inputs[name] for name in present}, present)


def _contents(store: Store, recipe: Recipe, seed: int) -> Iterator[tuple[str, Any]]:
    """The inputs of a recipe that are existing files."""
    from pipelines.runs.trajectories import starts

    for name, source in (("start", recipe.start), ("teacher", recipe.objective.teacher)):
        if isinstance(source, Weights) and (folder := starts.local_folder(store, source.ref)):
            yield name, _weights_digest(folder, _state(sorted(folder.glob("*.safetensors"))))
    paths = [Path(split_file(path)[0]).expanduser() for path in registry.path_options(recipe.task).values()]
    if paths and all(path.exists() for path in paths):
        folder = starts.tokenizer_folder(store, recipe.start, seed)
        key = json.dumps([recipe.identity()["task"], folder, _state(paths)])
        if key not in _facts and (folder is None or os.path.isdir(folder)):
            task: Any = registry.build(recipe.task, folder)
            _facts[key] = task.facts() if hasattr(task, "facts") else {}
        if key in _facts:
            yield "task", _facts[key]


def _state(paths: list[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of files; a change means that the file is read again."""
    return tuple((str(path), (facts := path.stat()).st_size, facts.st_mtime_ns) for path in paths)


@lru_cache(maxsize=64)
def _weights_digest(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    from pipelines.runs.trajectories import starts

    return starts.folder_digest(folder)


def _set_text(identity: dict[str, Any], path: tuple[str, ...], source: dict[str, Any]) -> None:
    """Copy a field's text from `source` if both hold text."""
    *parents, last = path
    for name in parents:
        identity, source = (
            part.get(name) if isinstance(part, dict) else None  # type: ignore[assignment]
            for part in (identity, source)
        )
    if all(isinstance(part, dict) and isinstance(part.get(last), str) for part in (identity, source)):
        identity[last] = source[last]
