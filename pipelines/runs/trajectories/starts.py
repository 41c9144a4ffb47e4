"""Where a run's weights come from: random, the end or a snapshot of another run, or a Hugging Face folder."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig

from opd_ops import models
from opd_ops.recipe import FinalOf, Fresh, SnapshotOf, Start, Task, Weights
from opd_ops.tasks.registry import build
from opd_ops.training.optimizer import Moments
from pipelines.store import integrity
from pipelines.store.checksum import REMEDY
from pipelines.store.names import repr_short
from pipelines.store.objects import Store, normalise
from pipelines.store.tensors import list_tensors, read
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_recipe, suggest_command


@dataclass(frozen=True, kw_only=True)
class Model:
    """Configuration, fp32 weights, where the tokenizer lies (if anywhere), and the digest that identifies it."""

    config: PretrainedConfig
    weights: dict[str, Tensor]
    folder: str | None
    digest: str

    def plain_config(self) -> dict:
        """The configuration as JSON types, enough to build the model again."""
        return json.loads(self.config.to_json_string(use_diff=False))


def load(store: Store, start: Start, seed: int, task: Task) -> Model:
    """The model that a run starts from or learns from. task: defines the special tokens of a model with random weights.

    Errors: ValueError naming the run or the weights that are absent, and the command that makes them, or the file that
    is not what was committed.
    """
    if isinstance(start, Fresh):
        tokens = build(task, None)
        bos = getattr(tokens, "bos", None)
        config = models.configuration(start.architecture, pad=tokens.pad, bos=bos, eos=tokens.eos)
        weights = models.initialise(config, seed)
        return Model(config=config, weights=weights, folder=None, digest=f"fresh-{seed}")
    if isinstance(start, FinalOf | SnapshotOf):
        trajectory = _source(store, start, seed)
        if isinstance(start, FinalOf):
            end = trajectory.end()
            if end is None:
                raise ValueError(
                    f"{trajectory.prefix} is not complete, and this run starts from its end: "
                    f"{suggest_command(trajectory.recipe, trajectory.seed)}"
                )
            step, digest = end["step"], end["digest"]
        else:
            trajectory.require_steps(start.step)
            step, digest = start.step, trajectory.digest(start.step)
        config = models.configuration_from(trajectory.run()["model"])
        weights = read(integrity.verified_refs(trajectory, step))
        return Model(config=config, weights=weights, folder=tokenizer_folder(store, start, seed), digest=digest)
    folder, digest = fetch(store, start.ref)
    config, weights = models.load_folder(folder)
    return Model(config=config, weights=weights, folder=folder, digest=digest)


def moments(store: Store, start: Start, seed: int) -> Moments | None:
    """The optimizer state that a run continues from, if any.

    Errors: ValueError when the source has no optimizer state of that step, with the setting that saves it.
    """
    if not isinstance(start, SnapshotOf) or start.moments == "reset":
        return None
    steps, tensors = _source(store, start, seed).load_moments(start.step)
    return Moments(steps=steps, tensors=tensors)


def tokenizer_folder(store: Store, start: Start, seed: int) -> str | None:
    """The folder with a model's tokenizer, found through the chain of runs that the model comes from.

    None for a model that began from random weights, on a task with its own alphabet.
    """
    passed: set[str] = set()
    while isinstance(start, FinalOf | SnapshotOf):
        trajectory = _source(store, start, seed)
        if not trajectory.is_registered():
            raise ValueError(
                f"{store.uri}/{trajectory.prefix} is not there, and says which tokenizer is meant; bring it back, "
                "where `opd rm` lists it, or train it again"
            )
        seed, stored = trajectory.seed, trajectory.run()["identity"]["start"]
        try:
            if stored["kind"] == "fresh":
                return None
            start = {"final": FinalOf, "snapshot": SnapshotOf, "weights": Weights}[stored["kind"]](**stored)
            start = _found_again(store, trajectory, start)
        except (LookupError, TypeError, AttributeError, ValueError):
            raise ValueError(f"{trajectory.prefix}/run.json names no start: {repr_short(stored)}; {REMEDY}") from None
        if trajectory.prefix in passed:
            raise ValueError(f"{trajectory.prefix}/run.json says that it starts from itself; {REMEDY}")
        passed.add(trajectory.prefix)
    return None if isinstance(start, Fresh) else fetch(store, start.ref)[0]


def _found_again(store: Store, trajectory: Trajectory, start: Start) -> Start:
    """The weights that a run began from, at the study's location where run.json's location is gone."""
    if not isinstance(start, Weights) or local_folder(store, start.ref) or start.ref.startswith("models/"):
        return start
    try:
        named = find_recipe(trajectory.recipe).start
    except ValueError:
        return start
    folder = local_folder(store, named.ref) if isinstance(named, Weights) else None
    same = folder is not None and folder_digest(folder) == trajectory.run()["inputs"].get("start")
    return named if same else start


def local_folder(store: Store, ref: str) -> Path | None:
    """The folder of weights on this machine; None where there is none, as of a name of the hub or in a remote store."""
    if ref.startswith("models/") and not store.local:
        return None
    folder = Path(store.path(ref) if ref.startswith("models/") else ref).expanduser()
    return folder if folder.is_dir() else None


def fetch(store: Store, ref: str) -> tuple[str, str]:
    """A local folder (or hub name) with the model `ref` and its digest. `models/<name>` lies in the store.

    Errors: ValueError naming the weights that are absent.
    """
    if not ref.startswith("models/"):
        folder = Path(ref).expanduser()
        return str(folder) if folder.exists() else ref, folder_digest(folder)
    if not store.exists(f"{ref}/config.json"):
        raise ValueError(f"{store.uri}/{ref} holds no weights: run `make weights` first")
    if store.local:
        return store.path(ref), folder_digest(Path(store.path(ref)))
    folder = Path(tempfile.mkdtemp(prefix="opd-weights-"))
    for name in store.list(ref):
        (folder / name).write_bytes(store.read(f"{ref}/{name}"))
    return str(folder), folder_digest(folder)


def require(store: Store, start: Start) -> None:
    """Errors: ValueError when weights that no run of the study makes are absent."""
    if isinstance(start, Weights):
        fetch(store, start.ref)


def _source(store: Store, start: FinalOf | SnapshotOf, seed: int) -> Trajectory:
    return Trajectory(store, start.recipe, seed if start.seed is None else start.seed)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's safetensors files; for a hub name, the name itself."""
    if not folder.exists():
        return str(folder)
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        list_tensors(Store(normalise(str(folder))), file.name)
        total.update(file.name.encode())
        with open(file, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
