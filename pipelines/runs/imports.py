"""Measure checkpoints trained elsewhere: local Hugging Face folders become the recipe external.<name>, seed 0.

Nothing is copied: tasks read byte ranges of the original files, so every worker must see the folders.
runs/external.<name>/seed-0/import.json, written after the tables, says which contents, settings and engine they are
of. Importing more snapshots under the same name and base measures all of them again, since locking needs every pair.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from opd_ops.geometry import VERSION
from pipelines import lake
from pipelines.lake.lake import partition_key
from pipelines.runs.clock import Clock
from pipelines.runs.measuring import TABLES, MatrixTask, measure, tasks
from pipelines.runs.provenance import provenance
from pipelines.runs.training import write_timing
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef, header
from pipelines.store.trajectory import LAYOUT, Trajectory
from pipelines.studies.study import Measurement

STUDY = "external"
FILE, INDEX, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
HEAD = "lm_head.weight"
_NAME = re.compile(r"[a-z0-9._-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights of a Hugging Face folder. who: what messages call it; tied: its head is its embedding."""

    who: str
    folder: Path
    tensors: dict[str, TensorRef]
    tied: bool

    def __str__(self) -> str:
        return f"{self.who} ({self.folder})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and contents of its safetensors files."""
        from pipelines.runs.starts import folder_digest

        return folder_digest(self.folder)

    @cached_property
    def vocabulary(self) -> dict[str, int] | None:
        """Ids by token, without tokens added later, which post-training renames; None without a tokenizer.json."""
        if not (self.folder / TOKENIZER).exists():
            return None
        try:
            found = _object(self.folder / TOKENIZER)["model"]["vocab"]
            return dict(found) if isinstance(found, dict) else {entry[0]: i for i, entry in enumerate(found)}
        except (LookupError, TypeError):
            raise ValueError(
                f"{self.folder / TOKENIZER} lists no vocabulary; remove it or bring the right one"
            ) from None

    def description(self) -> dict[str, str]:
        return {"ref": str(self.folder), "digest": self.digest}


@dataclass(frozen=True, kw_only=True)
class Import:
    """A checked import, ready to be measured."""

    store: Store
    recipe: str  # external.<name>
    steps: tuple[int, ...]  # all snapshots, recorded and given
    fresh: bool  # the tables are already of these snapshots, settings and engine: there is nothing to measure
    work: list[MatrixTask]  # empty where fresh
    record: dict[str, Any]  # import.json


def plan(
    store: Store, base: str, snapshots: Sequence[tuple[int, str]], measurement: Measurement, name: str | None = None
) -> Import:
    """Check everything about an import of `snapshots` (step, folder) of `base`, before any work; writes nothing.

    name: [a-z0-9._-], or None for the first 12 hex digits of the base's digest.
    Errors: ValueError in one line with the value and the remedy, for names, steps, folders, files, tensors and
    tokenizers that do not fit each other or what is recorded under the name, and for a store that cannot be written.
    """
    from opd_ops.geometry.suite import Settings

    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r} does not fit: use up to 100 of a-z, 0-9, dot, underscore and hyphen")
    Settings(**asdict(measurement))
    _require_steps([step for step, _ in snapshots])
    start = _open("base", base)
    given = {step: _open(f"snapshot {step}", ref) for step, ref in snapshots}
    _require_alike(start, given.values())
    store.require_writable()
    recipe = f"{STUDY}.{name or start.digest[:12]}"
    stored = _stored(store, recipe)
    if stored is not None:
        _require_extends(stored, recipe, start, given)
    kept = {int(step): found for step, found in stored["snapshots"].items()} if stored else {}
    described = kept | {step: checkpoint.description() for step, checkpoint in given.items()}
    steps = tuple(sorted(described))
    record = {
        "layout": LAYOUT,
        "base": start.description(),
        "snapshots": {str(step): described[step] for step in steps},
        "settings": {key: list(value) for key, value in asdict(measurement).items()},
        "engine": VERSION,
    }
    if stored is not None and _vouches(stored, store, recipe) and _made_from(stored) == _made_from(record):
        return Import(store=store, recipe=recipe, steps=steps, fresh=True, work=[], record=stored)
    every = {step: given[step] if step in given else _reopen(step, kept[step]) for step in steps}
    _require_alike(start, every.values())
    shared = set(start.tensors).intersection(*(checkpoint.tensors for checkpoint in every.values()))
    work = tasks(
        {tensor: ref for tensor, ref in start.tensors.items() if tensor in shared},
        [(step, checkpoint.tensors) for step, checkpoint in every.items()],
        {"study": STUDY, "recipe": recipe, "seed": 0},
        measurement,
    )
    return Import(store=store, recipe=recipe, steps=steps, fresh=False, work=work, record=record)


def measure_import(
    imported: Import, *, serial: bool = False, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[str]:
    """Measure, replace the tables of external.<name> and write its record; returns problems (non-finite by name).

    A fresh import measures nothing and returns the problems on record.
    """
    if imported.fresh:
        return imported.record["problems"]
    store, recipe = imported.store, imported.recipe
    clock = Clock()
    with clock.phase("measure"):
        found = measure(imported.work, serial=serial, progress=progress)
    clock.seconds["measure"][1] = found.seconds[1]
    record = imported.record | {"problems": found.problems, "provenance": provenance()}
    if store.exists(_key(store, recipe)):
        # Stopped between two tables, the old record must not vouch for a mixture.
        _write(store, recipe, record | {"complete": False})
    for table in TABLES:
        lake.write(store, table, found.rows[table], recipe=recipe, seed=0)
    write_timing(store, STUDY, recipe, 0, imported.steps[-1], clock)
    _write(store, recipe, record | {"complete": True})
    return found.problems


def _key(store: Store, recipe: str) -> str:
    return f"{Trajectory(store, recipe, 0).prefix}/import.json"


def _write(store: Store, recipe: str, record: dict[str, Any]) -> None:
    store.write(_key(store, recipe), (json.dumps(record, indent=1) + "\n").encode())


def _stored(store: Store, recipe: str) -> dict[str, Any] | None:
    try:
        stored = json.loads(store.read(_key(store, recipe)))
    except FileNotFoundError:
        return None
    if stored.get("layout") != LAYOUT:
        raise ValueError(
            f"{_key(store, recipe)} has layout {stored.get('layout')} and this version reads {LAYOUT}; "
            "import under another --name"
        )
    return stored


def _vouches(stored: dict[str, Any], store: Store, recipe: str) -> bool:
    """Whether a record was written after all its tables, and they are still there."""
    return stored["complete"] and all(store.exists(partition_key(table, recipe=recipe, seed=0)) for table in TABLES)


def _made_from(record: dict[str, Any]) -> dict[str, Any]:
    """What decides the rows: contents, settings and engine, wherever the folders lie."""
    digests = {step: found["digest"] for step, found in record["snapshots"].items()}
    return {key: record[key] for key in ("settings", "engine")} | {"base": record["base"]["digest"], "steps": digests}


def _require_steps(steps: list[int]) -> None:
    if not steps:
        raise ValueError("no snapshots to measure; give at least one --snapshot STEP=FOLDER")
    for step in steps:
        if type(step) is not int or step not in range(1, 2**63):
            raise ValueError(f"step {step!r} is not a whole number from 1 up; step 0 is the base itself")
        if steps.count(step) > 1:
            raise ValueError(f"step {step} is given {steps.count(step)} times; give each step one folder")


def _require_extends(stored: dict[str, Any], recipe: str, start: Checkpoint, given: dict[int, Checkpoint]) -> None:
    """Errors: ValueError when the record is of another base or has other contents at a given step."""
    if stored["base"]["digest"] != start.digest:
        raise ValueError(
            f"{recipe} was imported with the base {stored['base']['ref']} ({stored['base']['digest'][:12]}), "
            f"not with {start.folder} ({start.digest[:12]}); choose another --name"
        )
    for step, checkpoint in given.items():
        before = stored["snapshots"].get(str(step))
        if before and before["digest"] != checkpoint.digest:
            raise ValueError(
                f"{recipe} has other weights at step {step} ({before['ref']}, {before['digest'][:12]}) than "
                f"{checkpoint.folder} ({checkpoint.digest[:12]}); choose another --name or the right step"
            )


def _reopen(step: int, recorded: dict[str, str]) -> Checkpoint:
    """A recorded snapshot. Errors: ValueError when it is gone or changed."""
    remedy = (
        f"give it as --snapshot {step}=FOLDER where it lies now, or import the folders at hand under another --name"
    )
    folder = Path(recorded["ref"])
    if not folder.is_dir():
        raise ValueError(f"recorded snapshot {step} is gone from {folder}; {remedy}")
    found = _open(f"recorded snapshot {step}", str(folder))
    if found.digest != recorded["digest"]:
        raise ValueError(
            f"{found} has changed since it was imported ({recorded['digest'][:12]}, now {found.digest[:12]}); {remedy}"
        )
    return found


def _require_alike(start: Checkpoint, others: Iterable[Checkpoint]) -> None:
    """Errors: ValueError naming the first tensor, shape or token in which a checkpoint differs from the base."""
    for other in others:
        loose = {HEAD} if any(HEAD not in c.tensors and c.tied for c in (start, other)) else set()
        for lacking, having in ((other, start), (start, other)):
            if missing := sorted(having.tensors.keys() - lacking.tensors.keys() - loose):
                raise ValueError(
                    f"{lacking} lacks tensor {missing[0]} of {having} ({len(missing)} missing); "
                    "give checkpoints of one architecture, saved under the same parameter names"
                )
        for tensor in sorted(start.tensors.keys() & other.tensors.keys()):
            before, after = start.tensors[tensor].shape, other.tensors[tensor].shape
            if before != after:
                raise ValueError(
                    f"tensor {tensor} has shape {after} in {other} and {before} in {start}; "
                    "give the base these snapshots were trained from"
                )
        _require_same_tokens(start, other)


def _require_same_tokens(start: Checkpoint, other: Checkpoint) -> None:
    before, after = start.vocabulary, other.vocabulary
    if before is None or after is None or before == after:
        return
    both = before | after
    token = min((t for t in both if before.get(t) != after.get(t)), key=lambda t: (both[t], t))
    ids = [f"id {found[token]}" if token in found else "no id" for found in (before, after)]
    raise ValueError(
        f"tokenizers differ: token {token!r} has {ids[0]} in {start} and {ids[1]} in {other}; "
        "give the base these snapshots were trained from"
    )


def _open(who: str, ref: str) -> Checkpoint:
    """The checkpoint in a folder, from headers alone. Errors: ValueError naming who, the file and the remedy."""
    if "://" in ref and not ref.startswith("file://"):
        raise ValueError(f"{who}: {ref} is not a local folder; copy it here first")
    folder = Path(ref.removeprefix("file://")).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{who}: folder {ref} {what}; name a local Hugging Face folder (hub names are not fetched)")
    tensors: dict[str, TensorRef] = {}
    try:
        for file, names in _files(folder).items():
            found = _header(folder, file)
            tensors |= {name: ref for name, ref in found.items() if names is None or name in names}
        config = _object(folder / "config.json") if (folder / "config.json").exists() else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{who}: {error}") from None
    if not tensors:
        raise ValueError(f"{who}: the files of {folder} hold no bf16, fp16, fp32 or fp64 tensor; save the model whole")
    if empty := sorted(name for name, ref in tensors.items() if 0 in ref.shape):
        raise ValueError(
            f"{who}: tensor {empty[0]} of {folder} has shape {tensors[empty[0]].shape}; save the model whole"
        )
    return Checkpoint(who=who, folder=folder, tensors=tensors, tied=_tied(config))


def _files(folder: Path) -> dict[str, set[str] | None]:
    """Safetensors files of a model, each with the tensors to take from it (None: all)."""
    if (folder / FILE).exists():
        return {FILE: None}
    if not (folder / INDEX).exists():
        names = {path.name for path in folder.iterdir()}
        why, remedy = "and no other weights", f"name a folder with {FILE}, or with shards and their index"
        if any(name.startswith("pytorch_model") for name in names):
            why, remedy = "but pickled ones, which are not read", "convert them with save_pretrained(FOLDER)"
        elif "adapter_model.safetensors" in names:
            why, remedy = "but an adapter", "merge it into its base and save the whole model"
        raise ValueError(f"{folder} holds no {FILE} and no {INDEX}, {why}; {remedy}")
    files: dict[str, set[str] | None] = {}
    try:
        for name, file in _object(folder / INDEX)["weight_map"].items():
            files[file] = (files.get(file) or set()) | {name}
    except (LookupError, TypeError, AttributeError):
        raise ValueError(f"{folder / INDEX} has no weight_map of tensors to files; copy it again") from None
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not (folder / file).exists():
            raise ValueError(f"{folder / INDEX} names the shard {file!r}, which is not in the folder; copy it there")
    return files


def _header(folder: Path, file: str) -> dict[str, TensorRef]:
    """References to the float tensors of a file. Errors: ValueError also for quantized weights."""
    from safetensors import SafetensorError, safe_open

    try:
        refs = header(Store(f"file://{folder}"), file)
        with safe_open(folder / file, "numpy") as opened:
            others = sorted(name for name in opened.keys() if name not in refs)  # noqa: SIM118
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{str(error).splitlines()[0]}; copy or convert {file} again") from None
    if packed := [name for name in others if name.endswith("weight")]:
        raise ValueError(f"tensor {packed[0]} of {folder / file} is quantized; save the model in bf16 or fp32")
    return refs


def _tied(config: dict[str, Any] | None) -> bool:
    """Whether a configuration explains an absent head. Architectures that tie by default leave the key out."""
    return config is not None and config.get("tie_word_embeddings", True) is not False


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object; copy it again")
    return found
