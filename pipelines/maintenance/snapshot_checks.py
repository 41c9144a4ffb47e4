"""Whether a committed snapshot is what was committed: its manifest, its files, and what it is kept beside.

What pins a manifest: its own seal; its folder (step); the other manifests of the run (parent, base and its digest);
and the header of its weights, which the SHA-256 in it pins in turn.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.maintenance.finding import Finding, damaged, missing
from pipelines.store import checksum, tensors
from pipelines.store.manifest import FIELDS, explain_malformed
from pipelines.store.names import repr_short
from pipelines.store.objects import Store
from pipelines.store.snapshot import LAYOUT, NEWER, WEIGHTS, Snapshot, digest
from pipelines.store.tensors import HALF

CHUNK = 16 * 2**20  # bytes read at a time


@dataclass(frozen=True)
class Read:
    """A manifest, or why there is none to go by."""

    manifest: dict[str, Any] | None
    findings: tuple[Finding, ...] = ()


def sha256(store: Store, key: str, heard: Callable[[int], None] = lambda count: None) -> tuple[int, str]:
    """Size and SHA-256 of an object, read piece by piece; heard: bytes of each. Errors: FileNotFoundError."""
    size, total = store.size(key), hashlib.sha256()
    for begin in range(0, size, CHUNK):
        data = store.read(key, begin, min(begin + CHUNK, size))
        total.update(data)
        heard(len(data))
    return size, total.hexdigest()


def read_manifest(snapshot: Snapshot, step: int) -> Read:
    """The manifest of a committed snapshot, by itself: its seal, its fields, its step."""
    key, data = snapshot.key, snapshot.store.read(snapshot.key)
    try:
        manifest = checksum.remove_checksum(data, key)
    except ValueError as error:
        return Read(None, (damaged(key, str(error).removeprefix(f"{key} ").partition("; ")[0]),))
    if (layout := manifest.get("layout")) not in FIELDS:
        what = f"has layout {repr_short(layout)}, and this version reads layouts 1 to {LAYOUT}"
        return Read(None, (Finding("layout", key, what, NEWER),))
    if wrong := explain_malformed(manifest):
        return Read(None, (damaged(key, wrong),))
    if not checksum.is_canonical(data):
        return Read(manifest, (damaged(key, "is spaced otherwise than it was written"),))
    if manifest["step"] != step:
        return Read(None, (damaged(key, f"is that of step {manifest['step']}"),))
    return Read(manifest)


def check_relations(snapshot: Snapshot, manifest: Mapping[str, Any], others: Mapping[int, Read]) -> list[Finding]:
    """What contradicts the other manifests of the run (by step): parent, base, number of deltas."""
    key, step, found = snapshot.key, manifest["step"], []
    parent, base = manifest["parent"], manifest.get("base")
    if parent is not None and parent not in others:
        found.append(missing(snapshot.sibling(parent).key, f"is the parent of {key}"))
    if parent is not None and parent >= step:
        found.append(damaged(key, f"has the later step {parent} as its parent"))
    if bool(base) != (manifest.get("deltas", 0) > 0):
        found.append(damaged(key, f"has base {base} and is delta {manifest['deltas']}"))
    if not base:
        return found
    if base["step"] not in others:
        return [*found, missing(snapshot.sibling(base["step"]).key, f"is what {key} is kept beside")]
    beside = others[base["step"]].manifest
    if beside is None:
        return found  # said of the base itself
    if beside.get("base"):
        found.append(damaged(key, f"is kept beside step {base['step']}, which is not whole"))
    if digest(dict(beside)) != base["digest"]:
        holds = f"step {base['step']} holds {digest(dict(beside))[:12]}"
        found.append(damaged(key, f"is kept beside weights {base['digest'][:12]}, and {holds}"))
    return found


def check_contents(
    snapshot: Snapshot,
    manifest: Mapping[str, Any],
    there: Collection[str],
    heard: Callable[[int], None] = lambda count: None,
    *,
    deep: bool = False,
) -> list[Finding]:
    """What is wrong with the files of a snapshot, read again and hashed, and with the tensors named in them.

    there: names in its folder. deep: the weights are decoded, too, and hashed as a plain file.
    """
    found: list[Finding] = []
    for name, facts in manifest["files"].items():
        key = f"{snapshot.folder}/{name}"
        if name not in there:
            found.append(missing(key, "is named by its manifest"))
            continue
        size, sha = sha256(snapshot.store, key, heard)
        if size != facts["size"]:
            found.append(damaged(key, f"has {size} bytes, and its manifest says {facts['size']}"))
        elif sha != facts["sha256"]:
            found.append(damaged(key, f"has SHA-256 {sha[:12]}, and its manifest says {facts['sha256'][:12]}"))
    if not found:
        found = _header(snapshot, manifest)
    if deep and not found:
        found = _decoded(snapshot, manifest)
    return found


def check_snapshot(snapshot: Snapshot, step: int, *, deep: bool = False) -> list[Finding]:
    """All of the above for one snapshot, before a number is computed from it. Errors: FileNotFoundError."""
    read = read_manifest(snapshot, step)
    if read.manifest is None:
        return list(read.findings)
    near = {read.manifest["parent"], (read.manifest.get("base") or {}).get("step")} - {None}
    others = {s: read_manifest(snapshot.sibling(s), s) for s in near if snapshot.sibling(s).is_committed()}
    beside = check_relations(snapshot, read.manifest, others)
    there = snapshot.store.list(snapshot.folder)
    return [*read.findings, *beside, *check_contents(snapshot, read.manifest, there, deep=deep and not beside)]


def _header(snapshot: Snapshot, manifest: Mapping[str, Any]) -> list[Finding]:
    """Where the manifest's tensors are not those of the files' own headers."""
    stored, said, found = {}, _places(manifest), []
    for file in manifest["files"]:
        key = f"{snapshot.folder}/{file}"
        try:
            for name, ref in tensors.read_header(snapshot.store, key).tensors.items():
                stored[file, name] = (ref.begin, ref.end, ref.dtype, list(ref.shape))
        except ValueError as error:
            return [damaged(key, f"is not read: {str(error).splitlines()[0]}")]
    for file, name in sorted(stored.keys() ^ said.keys()):
        here = (file, name) in stored
        what = "is in its file and not in its manifest" if here else "is in its manifest and not in its file"
        found.append(damaged(snapshot.key, f"disagrees about tensor {name}, which {what}"))
    for file, name in sorted(stored.keys() & said.keys()):
        here, there = stored[file, name], said[file, name]
        if here[: len(there)] != there:  # how long a code is, is its file's to say
            what = f"disagrees with its file about tensor {name}: {there}, and {here[: len(there)]} there"
            found.append(damaged(snapshot.key, what))
    return found


def _places(manifest: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What each tensor of each file must be, as its header has it: begin, end, dtype, and shape of what is no code."""
    found = {}
    for name, tensor in manifest["tensors"].items():
        dtype = {None: tensor["dtype"], HALF: "BF16"}.get(tensor.get("code"), "U8")
        plain = () if dtype == "U8" else (tensor["shape"],)
        found[tensor["file"], name] = (tensor["begin"], tensor["end"], dtype, *plain)
        if view := tensor.get("view"):
            found[view["file"], name] = (view["begin"], view["end"], "U8")
    return found


def _decoded(snapshot: Snapshot, manifest: Mapping[str, Any]) -> list[Finding]:
    key = f"{snapshot.folder}/{WEIGHTS}"
    try:
        sha = tensors.sha256(tensors.read(snapshot.refs()))
    except ValueError as error:
        return [damaged(key, f"does not decode: {str(error).splitlines()[0]}")]
    said = digest(dict(manifest))
    return [] if sha == said else [damaged(key, f"decodes to weights {sha[:12]}, and its manifest says {said[:12]}")]
