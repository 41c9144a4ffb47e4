"""A run's address and what lies there: run.json, snapshots committed by manifests, resume state, end.json.

    runs/<recipe>/seed-<n>/run.json                       what the run is, and where it came from
    runs/<recipe>/seed-<n>/step-<8 digits>/manifest.json  exists if and only if the snapshot does
    runs/<recipe>/seed-<n>/step-<8 digits>/master.safetensors
    runs/<recipe>/seed-<n>/resume/step-<8 digits>/...     optimizer state; pruned, never analysed
    runs/<recipe>/seed-<n>/moments/step-<8 digits>/...    optimizer state of steps that others start from; kept
    runs/<recipe>/seed-<n>/end.json                       exists if and only if the run is complete

Snapshots are the product and are never pruned. The bf16 view is derived from the fp32 masters. A snapshot is whole, or
kept losslessly beside the last whole one (`codec`), which costs less than half; every sixteenth is whole. A recipe may
have its snapshots kept as updates in bf16 instead (`Precision.snapshots`), beside the first one.
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
    """A run was moved aside, or gave way to another one, while it was being trained."""


class OtherInputs(ValueError):
    """A stored run was made from other models than those that are there now."""


Kept = Literal["exact", "bf16-update"]
RECORD = 1  # layout of run.json and end.json; those of earlier versions name none
RUN: dict[str, type] = {"identity": dict, "fingerprint": str, "inputs": dict, "model": dict}  # fields of run.json
END: dict[str, type] = {"step": int, "digest": str, "snapshots": list, "evaluation": list}  # and of end.json
RESUME = "delete its folder: the run goes on from an earlier state, or from its start"
PIECE = 16 * 2**20  # bytes hashed at a time
DELTAS = 15  # snapshots kept beside one that is whole, before the next whole one
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
        """Create run.json, or check that the stored run is the same one.

        facts: identity (canonical JSON), fingerprint, inputs (digests of the models it is made from), provenance.
        Errors: as `require_matching`.
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
        """Errors: ValueError naming the fields in which the stored identity differs, OtherInputs for the inputs."""
        self.require_same(stored, facts["identity"], facts["fingerprint"])
        self.require_inputs(stored["inputs"], facts["inputs"])

    def require_inputs(self, stored: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Errors: OtherInputs naming the digests in which what the run was made from differs from what is there now."""
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
        """run.json. Errors: FileNotFoundError, and ValueError where it is not what was written."""
        key = f"{self.prefix}/run.json"
        found = _record(self.store.read(key), key).require(RUN)
        if "identity" in found:
            found["identity"] = JsonObject(found["identity"], f"{key}: identity", checksum.REMEDY)
        return found

    def is_registered(self) -> bool:
        return self.store.exists(f"{self.prefix}/run.json")

    def has_progress(self) -> bool:
        """Whether the run is complete, or has a committed snapshot past step 0."""
        return self.end() is not None or any(self.steps())

    @contextlib.contextmanager
    def require_owner(self, fingerprint: str, *written: str) -> Iterator[list[str | None]]:
        """Write to a run only while its run.json is there and has this fingerprint.

        written: prefixes of what the block writes, to which the block may add; they are removed where the run was lost
        in the meantime. Errors: Lost, in one line.
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
            found = self.run()["fingerprint"]
        except FileNotFoundError:
            found = None
        if found != fingerprint:
            what = "was moved aside" if found is None else "gave way to a run of another recipe"
            raise Lost(
                f"{self.prefix} {what} while it was being trained here: the same command begins it anew; `opd rm` "
                "lists what can be brought back"
            )

    def steps(self) -> list[int]:
        """Committed snapshots in order, found by listing."""
        found = []
        for name in self.store.list(self.prefix):
            if (match := _STEP.match(name)) and self.store.exists(f"{self.prefix}/{name}/manifest.json"):
                found.append(int(match[1]))
        return sorted(found)

    def steps_after(self, step: int) -> list[int]:
        """Steps past this one of which a snapshot is there, whole or in part, in order."""
        found = [int(match[1]) for name in self.store.list(self.prefix) if (match := _STEP.match(name))]
        return sorted(one for one in found if one > step)

    def commit(self, step: int, tensors: dict[str, "Tensor"], parent: int | None, kept: Kept = "exact") -> str:
        """Write a snapshot and its manifest, in that order; returns the digest of its weights.

        kept: exact, or as updates in bf16 since the run's first snapshot, which is always exact (`codec`). A snapshot
        that exists already must hold the same weights. Errors: ValueError when it does not.
        """
        snapshot = self.snapshot(step)
        base, deltas = self._base(parent) if kept == "exact" or parent is None else (0, 1)
        code = encode_deltas if kept == "exact" else encode_updates
        if snapshot.is_committed() and code is encode_deltas:  # told without coding anything
            return self._require(step, self.digest(step), sha256(tensors))
        payload = encode_whole(tensors) if base is None else code(tensors, self.refs(base))
        if snapshot.is_committed():
            return self._require(step, self.digest(step), payload.digest)
        for name, file in payload.files.items():
            try:
                # Never replaced: a racing writer of other bytes must not change the file under the winner's manifest.
                self.store.create(f"{snapshot.folder}/{name}", *file.buffers)
            except FileExistsError:
                stored = hashlib.sha256(self.store.read(f"{snapshot.folder}/{name}")).hexdigest()
                if base is None and stored == payload.digest:  # left without its manifest by a layout before 3
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
            # A sweep by a clock that jumped may have taken them for old: from now on the manifest keeps them.
            with contextlib.suppress(FileExistsError):
                if not self.store.exists(f"{snapshot.folder}/{name}"):
                    self.store.create(f"{snapshot.folder}/{name}", *file.buffers)
        return payload.digest

    def snapshot(self, step: int) -> Snapshot:
        return Snapshot(self.store, f"{self.prefix}/{folder(step)}")

    def manifest(self, step: int) -> dict[str, Any]:
        """Errors: ValueError when the snapshot is absent or of another layout."""
        try:
            return self.snapshot(step).manifest()
        except FileNotFoundError:
            raise ValueError(f"{self.prefix} has no committed snapshot of step {step}") from None

    def digest(self, step: int) -> str:
        """SHA-256 of the snapshot's weights as a plain safetensors file, however they are kept."""
        return digest(self.manifest(step))

    def refs(self, step: int) -> dict[str, TensorRef]:
        """References to the snapshot's tensors by name. Errors: as `manifest` and `Snapshot.refs`."""
        self.manifest(step)
        return self.snapshot(step).refs()

    def require_steps(self, step: int) -> None:
        """Errors: ValueError naming the snapshots that are there, when that of `step` is not."""
        found = self.steps()
        if step not in found:
            raise ValueError(
                f"{self.prefix} has no snapshot of step {step}; it has those of steps "
                f"{', '.join(map(str, found)) or 'none: train it first'}"
            )

    def verify(self, step: int) -> list[str]:
        """What is wrong with a snapshot's files: empty when sizes and digests agree with the manifest."""
        self.manifest(step)
        return self.snapshot(step).problems()

    def end(self) -> dict[str, Any] | None:
        """end.json of a complete run, else None. Errors: ValueError where it is not what was written."""
        key = f"{self.prefix}/end.json"
        try:
            found = _record(self.store.read(key), key).require(END)
        except FileNotFoundError:
            return None
        if not all(map(is_count, (found.get("step", 0), *found.get("snapshots", [])))):
            raise ValueError(f"{key} names what is no step; {checksum.REMEDY}")
        return found

    def finish(self, facts: dict[str, Any]) -> None:
        self.store.write(f"{self.prefix}/end.json", _json(checksum.add_checksum(facts | {"layout": RECORD})))
        self.store.remove(f"{self.prefix}/resume")

    def save_resume(self, step: int, tensors: dict[str, "Tensor"], facts: dict[str, Any]) -> None:
        """Keep the newest resume state only; its facts are written last and make it valid."""
        self._save(f"{self.prefix}/resume/step-{step:08d}", tensors, facts)
        for name in self.store.list(f"{self.prefix}/resume"):
            if (match := _STEP.match(name)) and int(match[1]) < step:
                self.store.remove(f"{self.prefix}/resume/{name}")

    def load_resume(self) -> tuple[int, dict[str, "Tensor"], dict[str, Any]] | None:
        """Step, tensors and facts of the newest valid resume state, or None.

        Errors: ValueError, with the remedy, where it is not what was written.
        """
        for name in reversed(self.store.list(f"{self.prefix}/resume")):
            folder = f"{self.prefix}/resume/{name}"
            if (match := _STEP.match(name)) and self.store.exists(f"{folder}/facts.json"):
                facts, tensors = self._state(folder, RESUME)
                return int(match[1]), tensors, facts
        return None

    def save_moments(self, step: int, steps: int, tensors: dict[str, "Tensor"]) -> None:
        """Keep an optimizer's state after `steps` steps of its own beside the snapshot of `step`, for good."""
        self._save(f"{self.prefix}/moments/step-{step:08d}", tensors, {"steps": steps})

    def load_moments(self, step: int) -> tuple[int, dict[str, "Tensor"]]:
        """What `save_moments` kept. Errors: ValueError, with how to keep it, when nothing was, or it is not that."""
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
        """Tensors, then facts with the digest of the tensors' file, sealed."""
        data = serialise(tensors)
        self.store.write(f"{folder}/state.safetensors", data)
        state = {"state": hashlib.sha256(data).hexdigest()}
        self.store.write(f"{folder}/facts.json", _json(checksum.add_checksum(facts | state)))

    def _state(self, folder: str, remedy: str) -> tuple[JsonObject, dict[str, "Tensor"]]:
        """Facts and tensors of a state. Errors: FileNotFoundError, ValueError where it is not what was written."""
        facts = checksum.remove_checksum(self.store.read(f"{folder}/facts.json"), f"{folder}/facts.json", remedy)
        key, said, total = f"{folder}/state.safetensors", facts.pop("state", None), hashlib.sha256()
        for begin in range(0, self.store.size(key) if said is not None else 0, PIECE):
            total.update(self.store.read(key, begin, begin + PIECE))
        if said not in (None, total.hexdigest()):
            raise ValueError(f"{key} is not what was written there; {remedy}")
        try:
            return facts, read(list_tensors(self.store, key))
        except ValueError as error:
            raise ValueError(f"{error}; {remedy}") from None

    def _base(self, parent: int | None) -> tuple[int | None, int]:
        """What the snapshot after `parent` is kept beside, and how many then are; (None, 0) where it is to be whole."""
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
    """run.json or end.json. Errors: ValueError where it is not what was written, or of another layout."""
    found = checksum.remove_checksum(data, key)
    if (layout := found.pop("layout", RECORD)) != RECORD:
        raise ValueError(f"{key} has layout {repr_short(layout)}; this version reads layout {RECORD}: {NEWER}")
    return found


def _place(file: str, ref: TensorRef) -> dict[str, Any]:
    return {"file": file, "begin": ref.begin, "end": ref.end}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
