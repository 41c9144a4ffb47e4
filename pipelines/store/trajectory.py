"""The stored files of one run: run.json, snapshots committed by manifests, resume state, end.json.

    runs/<recipe>/seed-<n>/run.json                       identity and provenance of the run
    runs/<recipe>/seed-<n>/step-<8 digits>/manifest.json  exists if and only if the snapshot is committed
    runs/<recipe>/seed-<n>/step-<8 digits>/master.safetensors
    runs/<recipe>/seed-<n>/resume/step-<8 digits>/...     newest optimizer state; pruned, never analysed
    runs/<recipe>/seed-<n>/moments/step-<8 digits>/...    optimizer states that other runs start from; never pruned
    runs/<recipe>/seed-<n>/end.json                       exists if and only if the run is complete

Snapshots are never pruned. The bf16 view is derived from the fp32 masters. A snapshot is stored whole, or losslessly as
differences to the last whole one (`codec`), which costs less than half; every sixteenth is whole. A recipe may store
its snapshots as bf16 updates from the first snapshot instead (`Precision.snapshots`).

The file is longer than 350 lines because commit, resume and completion of a run share its layout and its checks.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from opd_ops.recipe import differences
from pipelines.store import checksum
from pipelines.store.json_object import JsonObject, is_count
from pipelines.store.names import repr_short, require_name
from pipelines.store.objects import Store
from pipelines.store.payload import (
    VIEWS,
    WEIGHTS,
    dtype_name,
    encode_deltas,
    encode_plain,
    encode_updates,
    encode_whole,
)
from pipelines.store.snapshot import LAYOUT, NEWER, Snapshot, digest, folder
from pipelines.store.tensors import TensorRef, list_tensors, read, read_header, serialise, sha256

if TYPE_CHECKING:
    from torch import Tensor


class Lost(ValueError):
    """The run was moved aside or replaced by another run while it was being trained."""


class OtherInputs(ValueError):
    """A stored run was made from other models or data than the current ones."""


Kept = Literal["exact", "bf16-update"]
RECORD = 1  # layout of run.json and end.json; those of earlier versions name none
RUN: dict[str, type] = {"identity": dict, "fingerprint": str, "inputs": dict, "model": dict}  # fields of run.json
END: dict[str, type] = {"step": int, "digest": str, "snapshots": list, "evaluation": list}  # and of end.json
RESUME = "delete its folder: the run goes on from an earlier state, or from its start"
PIECE = 16 * 2**20  # bytes hashed at a time
DELTAS = 15  # snapshots stored as differences between two whole ones
_STEP = re.compile(r"step-(\d{8})$")


@dataclass(frozen=True)
class Trajectory:
    """The trajectory of `recipe` (a name) and `seed` in a store."""

    store: Store
    recipe: str
    seed: int

    def __post_init__(self) -> None:
        require_name(self.recipe, "recipe")

    @property
    def prefix(self) -> str:
        return f"runs/{self.recipe}/seed-{self.seed}"

    def register(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Create run.json, or check that the stored run is the same; returns the stored fields.

        facts: identity (canonical JSON), fingerprint, inputs (digests of the models that the run starts from),
        provenance. Errors: as `require_matching`.
        """
        key = f"{self.prefix}/run.json"
        try:
            self.store.create(key, _json(checksum.add_checksum(facts | {"layout": RECORD})))
            return facts
        except FileExistsError:
            stored = self.run()
        self.require_matching(stored, facts)
        return stored

    def require_matching(self, stored: dict[str, Any], facts: dict[str, Any]) -> None:
        """Errors: ValueError with the fields in which the stored identity differs; OtherInputs for other inputs."""
        self.require_same(stored, facts["identity"], facts["fingerprint"])
        self.require_inputs(stored["inputs"], facts["inputs"])

    def require_inputs(self, stored: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Errors: OtherInputs with the digests in which the run's recorded inputs differ from the current ones."""
        if changed := differences(stored, inputs):
            what = "data" if all(line.startswith("task.") for line in changed) else "models"
            raise OtherInputs(
                f"{self.prefix} was made from other {what} ({'; '.join(changed)}); "
                f"bring them back, or move this run aside: opd rm {self.recipe}/{self.seed}"
            )

    def require_same(self, stored: dict[str, Any], identity: dict[str, Any], fingerprint: str) -> None:
        if stored["fingerprint"] != fingerprint:
            changed = "; ".join(differences(stored["identity"], identity)) or "fingerprint"
            raise ValueError(
                f"{self.prefix} holds a run of another recipe ({changed}); "
                f"restore the recipe, give the arm a new name, or move the stored run aside: opd rm {self.recipe}/"
                f"{self.seed}"
            )

    def run(self) -> dict[str, Any]:
        """The fields of run.json. Errors: FileNotFoundError; ValueError if it is damaged."""
        key = f"{self.prefix}/run.json"
        facts = _record(self.store.read(key), key).require(RUN)
        if "identity" in facts:
            facts["identity"] = JsonObject(facts["identity"], f"{key}: identity", checksum.REMEDY)
        return facts

    def is_registered(self) -> bool:
        return self.store.exists(f"{self.prefix}/run.json")

    def has_progress(self) -> bool:
        """Whether the run is complete, or has a committed snapshot past step 0."""
        return self.end() is not None or any(self.steps())

    @contextlib.contextmanager
    def require_owner(self, fingerprint: str, *written: str) -> Iterator[list[str | None]]:
        """A block that writes to a run only if its run.json exists and has this fingerprint.

        written: prefixes that the block writes; the block may append to the yielded list. If the run is lost during the
        block, they are removed. Errors: Lost, in one line.
        """
        self._require_owned(fingerprint)
        prefixes: list[str | None] = [*written]
        yield prefixes
        try:
            self._require_owned(fingerprint)
        except Lost:
            for prefix in filter(None, prefixes):
                self.store.remove(prefix)
            raise

    def _require_owned(self, fingerprint: str) -> None:
        try:
            stored = self.run()["fingerprint"]
        except FileNotFoundError:
            stored = None
        if stored != fingerprint:
            what = "was moved aside" if stored is None else "gave way to a run of another recipe"
            raise Lost(
                f"{self.prefix} {what} while it was being trained here: the same command begins it anew; `opd rm` "
                "lists what can be brought back"
            )

    def steps(self) -> list[int]:
        """Steps of the committed snapshots, in order, from a listing."""
        return [step for step in self._folders() if self.snapshot(step).is_committed()]

    def steps_after(self, step: int) -> list[int]:
        """Steps past `step` that have a snapshot folder, committed or not, in order."""
        return [later for later in self._folders() if later > step]

    def _folders(self) -> list[int]:
        return sorted(int(match[1]) for name in self.store.list(self.prefix) if (match := _STEP.match(name)))

    def commit(self, step: int, tensors: dict[str, "Tensor"], parent: int | None, kept: Kept = "exact") -> str:
        """Write a snapshot's files, then its manifest; returns the digest of its weights.

        kept: "exact", or "bf16-update" for bf16 updates from the run's first snapshot, which is always exact (`codec`).
        Errors: ValueError if the snapshot exists with other weights.
        """
        snapshot = self.snapshot(step)
        base, deltas = self._base(parent) if kept == "exact" or parent is None else (0, 1)
        code = encode_deltas if kept == "exact" else encode_updates
        if snapshot.is_committed() and code is encode_deltas:  # compares digests without encoding
            return self._require(step, self.digest(step), sha256(tensors))
        payload = encode_whole(tensors) if base is None else code(tensors, self.refs(base))
        if snapshot.is_committed():
            return self._require(step, self.digest(step), payload.digest)
        for name, file in payload.files.items():
            try:
                # Never replace: a racing writer with other bytes must not change the file under the winner's manifest.
                self.store.create(f"{snapshot.folder}/{name}", *file.buffers)
            except FileExistsError:
                stored = hashlib.sha256(self.store.read(f"{snapshot.folder}/{name}")).hexdigest()
                if base is None and stored == payload.digest:  # an uncommitted file of layout 1 or 2
                    payload = encode_plain(tensors)
                else:
                    self._require(step, stored, file.sha256)
        lies = {name: read_header(self.store, f"{snapshot.folder}/{name}").tensors for name in payload.files}
        manifest = {
            "layout": LAYOUT,
            "step": step,
            "parent": parent,
            "digest": payload.digest,
            "base": None if base is None else {"step": base, "digest": self.digest(base)},
            "deltas": deltas,
            "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in payload.files.items()},
            "tensors": {
                name: {"dtype": dtype_name(tensor), "shape": list(tensor.shape)}
                | _place(WEIGHTS, lies[WEIGHTS][name])
                | payload.facts.get(name, {})
                | ({"view": _place(VIEWS, lies[VIEWS][name]) | payload.views} if name in lies.get(VIEWS, ()) else {})
                for name, tensor in sorted(tensors.items())
            },
        } | payload.precision
        try:
            self.store.create(snapshot.key, _json(checksum.add_checksum(manifest)))
        except FileExistsError:
            return self._require(step, self.digest(step), payload.digest)
        for name, file in payload.files.items():
            # A sweep may have deleted the files if a clock jumped; write them again. The manifest protects them now.
            with contextlib.suppress(FileExistsError):
                if not self.store.exists(f"{snapshot.folder}/{name}"):
                    self.store.create(f"{snapshot.folder}/{name}", *file.buffers)
        return payload.digest

    def snapshot(self, step: int) -> Snapshot:
        return Snapshot(self.store, f"{self.prefix}/{folder(step)}")

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of a snapshot. Errors: ValueError if it is absent, damaged or of another layout."""
        try:
            return self.snapshot(step).manifest()
        except FileNotFoundError:
            raise ValueError(f"{self.prefix} has no committed snapshot of step {step}") from None

    def digest(self, step: int) -> str:
        """SHA-256 of the snapshot's decoded weights as one plain safetensors file."""
        return digest(self.manifest(step))

    def refs(self, step: int) -> dict[str, TensorRef]:
        """References to the snapshot's tensors by name. Errors: as `manifest` and `Snapshot.refs`."""
        self.manifest(step)
        return self.snapshot(step).refs()

    def require_steps(self, step: int) -> None:
        """Errors: ValueError with the committed steps if `step` is not one of them."""
        steps = self.steps()
        if step not in steps:
            raise ValueError(
                f"{self.prefix} has no snapshot of step {step}; it has those of steps "
                f"{', '.join(map(str, steps)) or 'none: train it first'}"
            )

    def verify(self, step: int) -> list[str]:
        """The problems of a snapshot's files, empty if sizes and digests agree with the manifest."""
        self.manifest(step)
        return self.snapshot(step).problems()

    def end(self) -> dict[str, Any] | None:
        """The fields of end.json if the run is complete, else None. Errors: ValueError if it is damaged."""
        key = f"{self.prefix}/end.json"
        try:
            facts = _record(self.store.read(key), key).require(END)
        except FileNotFoundError:
            return None
        if not all(map(is_count, (facts.get("step", 0), *facts.get("snapshots", [])))):
            raise ValueError(f"{key} names what is no step; {checksum.REMEDY}")
        return facts

    def finish(self, facts: dict[str, Any]) -> None:
        self.store.write(f"{self.prefix}/end.json", _json(checksum.add_checksum(facts | {"layout": RECORD})))
        self.store.remove(f"{self.prefix}/resume")

    def save_resume(self, step: int, tensors: dict[str, "Tensor"], facts: dict[str, Any]) -> None:
        """Write a resume state and delete older ones. facts.json is written last and makes the state valid."""
        self._save(f"{self.prefix}/resume/step-{step:08d}", tensors, facts)
        for name in self.store.list(f"{self.prefix}/resume"):
            if (match := _STEP.match(name)) and int(match[1]) < step:
                self.store.remove(f"{self.prefix}/resume/{name}")

    def load_resume(self) -> tuple[int, dict[str, "Tensor"], dict[str, Any]] | None:
        """Step, tensors and facts of the newest valid resume state, or None. Errors: ValueError if it is damaged."""
        for name in reversed(self.store.list(f"{self.prefix}/resume")):
            folder = f"{self.prefix}/resume/{name}"
            if (match := _STEP.match(name)) and self.store.exists(f"{folder}/facts.json"):
                facts, tensors = self._state(folder, RESUME)
                return int(match[1]), tensors, facts
        return None

    def save_moments(self, step: int, steps: int, tensors: dict[str, "Tensor"]) -> None:
        """Write the optimizer state at the snapshot of `step`; it is never pruned. steps: optimizer steps so far."""
        self._save(f"{self.prefix}/moments/step-{step:08d}", tensors, {"steps": steps})

    def load_moments(self, step: int) -> tuple[int, dict[str, "Tensor"]]:
        """`steps` and tensors of `save_moments`. Errors: ValueError if there is no such state, or it is damaged."""
        folder = f"{self.prefix}/moments/step-{step:08d}"
        try:
            facts, tensors = self._state(folder, checksum.REMEDY)
        except FileNotFoundError:
            raise ValueError(
                f"{self.prefix} kept no optimizer state of step {step}: train it with "
                f"resources.keep_moments=({step},), from its start, or go on with start.moments='reset'"
            ) from None
        return facts.require({"steps": int})["steps"], tensors

    def _save(self, folder: str, tensors: dict[str, "Tensor"], facts: dict[str, Any]) -> None:
        """Write the tensors, then the facts with the tensors' SHA-256 and a checksum."""
        data = serialise(tensors)
        self.store.write(f"{folder}/state.safetensors", data)
        state = {"state": hashlib.sha256(data).hexdigest()}
        self.store.write(f"{folder}/facts.json", _json(checksum.add_checksum(facts | state)))

    def _state(self, folder: str, remedy: str) -> tuple[JsonObject, dict[str, "Tensor"]]:
        """Facts and tensors of a state. Errors: FileNotFoundError; ValueError with the remedy if it is damaged."""
        name = f"{folder}/facts.json"
        facts = checksum.remove_checksum(self.store.read(name), name, remedy, marker="state")
        key, expected, total = f"{folder}/state.safetensors", facts.pop("state", None), hashlib.sha256()
        for begin in range(0, self.store.size(key) if expected is not None else 0, PIECE):
            total.update(self.store.read(key, begin, begin + PIECE))
        if expected not in (None, total.hexdigest()):
            raise ValueError(f"{key} is not what was written there; {remedy}")
        try:
            return facts, read(list_tensors(self.store, key))
        except ValueError as error:
            raise ValueError(f"{error}; {remedy}") from None

    def _base(self, parent: int | None) -> tuple[int | None, int]:
        """(base step, number of differences to it) for the snapshot after `parent`; (None, 0) for a whole one."""
        if parent is None or not self.snapshot(parent).is_committed():
            return None, 0
        manifest = self.manifest(parent)
        deltas = manifest.get("deltas", 0) + 1
        base = manifest.get("base")
        return (None, 0) if deltas > DELTAS else (parent if base is None else base["step"], deltas)

    def _require(self, step: int, stored: str, digest: str) -> str:
        if stored != digest:
            raise ValueError(
                f"{self.prefix}/step-{step:08d} holds other weights ({stored[:12]}, now {digest[:12]}); "
                "the code or the machine changed: use another OPD_STORE"
            )
        return digest


def _record(data: bytes, key: str) -> JsonObject:
    """The fields of run.json or end.json. Errors: ValueError if it is damaged or of another layout."""
    facts = checksum.remove_checksum(data, key, marker="layout")
    if (layout := facts.pop("layout", RECORD)) != RECORD:
        raise ValueError(f"{key} has layout {repr_short(layout)}; this version reads layout {RECORD}: {NEWER}")
    return facts


def _place(file: str, ref: TensorRef) -> dict[str, Any]:
    return {"file": file, "begin": ref.begin, "end": ref.end}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
