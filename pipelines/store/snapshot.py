"""One committed snapshot: its manifest, and its weights, which are whole or encoded relative to a base snapshot.

The manifest lists every file with size and SHA-256, and every tensor with file, dtype, shape and byte range. A tensor
with a `code` is stored as bf16, or encoded relative to the tensor of the same name in the snapshot `base`, which is
always whole. For a bf16 update, `view` locates the bf16 view, and `error` is the relative rounding error (`payload`).
"""

import hashlib
import posixpath
from dataclasses import dataclass, replace
from typing import Any

from pipelines.store import checksum
from pipelines.store.manifest import FIELDS, explain_malformed
from pipelines.store.names import repr_short
from pipelines.store.objects import Store
from pipelines.store.payload import WEIGHTS
from pipelines.store.tensors import HALF, TensorRef

LAYOUT = 3  # version in every manifest. 1: whole snapshots only; 2: no tensors as bf16. Both are still read
NEWER = "read it with the version of this project that wrote it, or with a later one"


@dataclass(frozen=True)
class Snapshot:
    """The snapshot in `folder` of a store. The other snapshots of its run are in sibling folders."""

    store: Store
    folder: str

    @property
    def key(self) -> str:
        return f"{self.folder}/manifest.json"

    def sibling(self, step: int) -> "Snapshot":
        """Another snapshot of the run."""
        return replace(self, folder=posixpath.join(posixpath.dirname(self.folder), folder(step)))

    def is_committed(self) -> bool:
        return self.store.exists(self.key)

    def manifest(self) -> dict[str, Any]:
        """The manifest. Errors: FileNotFoundError if not committed; ValueError if damaged or of another layout."""
        manifest = checksum.remove_checksum(self.store.read(self.key), self.key)
        if (layout := manifest.get("layout")) not in FIELDS:
            raise ValueError(
                f"{self.key} has layout {repr_short(layout)}; this version reads layouts 1 to {LAYOUT}: {NEWER}"
            )
        if wrong := explain_malformed(manifest):
            raise ValueError(f"{self.key} {wrong}; {checksum.REMEDY}")
        return manifest

    def refs(self) -> dict[str, TensorRef]:
        """References to its tensors by name.

        Errors: as `manifest`, and ValueError if the base snapshot is missing or holds other weights now.
        """
        manifest = self.manifest()
        others = self._base_refs(manifest["base"]) if manifest.get("base") else {}
        shas = {name: facts["sha256"] for name, facts in manifest["files"].items()}
        return {name: self._ref(name, entry, others.get(name), shas) for name, entry in manifest["tensors"].items()}

    def problems(self) -> list[str]:
        """The problems of its files, empty if sizes and digests agree with the manifest."""
        lines = []
        for name, facts in self.manifest()["files"].items():
            key = f"{self.folder}/{name}"
            try:
                data = self.store.read(key)
            except FileNotFoundError:
                lines.append(f"{key} is missing")
                continue
            if len(data) != facts["size"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
                lines.append(f"{key} differs from its manifest")
        return lines

    def _ref(self, name: str, entry: dict[str, Any], other: TensorRef | None, shas: dict[str, str]) -> TensorRef:
        """The reference of a manifest entry. other: the base's tensor. shas: SHA-256 of files by name."""
        ref = TensorRef(
            store=self.store,
            key=f"{self.folder}/{entry['file']}",
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            begin=entry["begin"],
            end=entry["end"],
            sha256=shas[entry["file"]],
        )
        if (code := entry.get("code")) in (None, HALF):
            return replace(ref, code=code)
        if other is None or (other.shape, other.dtype) != (ref.shape, ref.dtype):
            beside = "nothing" if other is None else f"{other.dtype} {other.shape} there"
            raise ValueError(
                f"{self.key}: tensor {name}, {ref.dtype} {ref.shape}, is kept beside {beside}; {checksum.REMEDY}"
            )
        view = entry.get("view")
        lies = {key: view[key] for key in ("begin", "end", "code")} if view else {}
        seen = view and replace(
            ref, key=f"{self.folder}/{view['file']}", dtype="BF16", sha256=shas[view["file"]], **lies
        )
        return replace(ref, code=code, base=other, view=seen)

    def _base_refs(self, base: dict[str, Any]) -> dict[str, TensorRef]:
        """The tensors of the snapshot that a manifest names as base."""
        other, wanted = self.sibling(base["step"]), base["digest"][:12]
        try:
            manifest = other.manifest()
            stored = digest(manifest)[:12]
        except FileNotFoundError:
            manifest, stored = {}, "nothing"
        if stored != wanted:
            beside = f"{self.folder} is kept beside {other.folder} with weights {wanted}"
            raise ValueError(f"{beside}, and that holds {stored}: bring it back")
        if manifest.get("base"):
            raise ValueError(f"{self.key} is kept beside {other.folder}, which is not whole; {checksum.REMEDY}")
        return other.refs()


def folder(step: int) -> str:
    return f"step-{step:08d}"


def digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a snapshot's decoded weights as one plain safetensors file."""
    return manifest["digest"] if manifest["layout"] > 1 else manifest["files"][WEIGHTS]["sha256"]
