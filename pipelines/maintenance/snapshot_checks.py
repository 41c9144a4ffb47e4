"""Checks a committed snapshot: its manifest, its files, and its relation to its base and parent.

A manifest is checked against its own checksum, its folder (step), the other manifests of the run (parent, base and the
base's digest), and the headers of its weights files, whose SHA-256 it holds.
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
    """A manifest, or None with the findings that explain why."""

    manifest: dict[str, Any] | None
    findings: tuple[Finding, ...] = ()


def sha256(store: Store, key: str, heard: Callable[[int], None] = lambda count: None) -> tuple[int, str]:
    """Size and SHA-256 of an object, read in pieces. heard: gets the bytes of each. Errors: FileNotFoundError."""
    size, total = store.size(key), hashlib.sha256()
    for begin in range(0, size, CHUNK):
        data = store.read(key, begin, min(begin + CHUNK, size))
        total.update(data)
        heard(len(data))
    return size, total.hexdigest()


def read_manifest(snapshot: Snapshot, step: int) -> Read:
    """The manifest of a committed snapshot, after its checksum, fields and step are checked."""
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
    """Findings where a manifest contradicts the run's other manifests (by step): parent, base, number of deltas."""
    key, step, findings = snapshot.key, manifest["step"], []
    parent, base = manifest["parent"], manifest.get("base")
    if parent is not None and parent not in others:
        findings.append(missing(snapshot.sibling(parent).key, f"is the parent of {key}"))
    if parent is not None and parent >= step:
        findings.append(damaged(key, f"has the later step {parent} as its parent"))
    if bool(base) != (manifest.get("deltas", 0) > 0):
        findings.append(damaged(key, f"has base {base} and is delta {manifest['deltas']}"))
    if not base:
        return findings
    if base["step"] not in others:
        return [*findings, missing(snapshot.sibling(base["step"]).key, f"is what {key} is kept beside")]
    base_manifest = others[base["step"]].manifest
    if base_manifest is None:
        return findings  # the base has its own finding
    if base_manifest.get("base"):
        findings.append(damaged(key, f"is kept beside step {base['step']}, which is not whole"))
    if digest(dict(base_manifest)) != base["digest"]:
        holds = f"step {base['step']} holds {digest(dict(base_manifest))[:12]}"
        findings.append(damaged(key, f"is kept beside weights {base['digest'][:12]}, and {holds}"))
    return findings


def check_contents(
    snapshot: Snapshot,
    manifest: Mapping[str, Any],
    names: Collection[str],
    heard: Callable[[int], None] = lambda count: None,
    *,
    deep: bool = False,
) -> list[Finding]:
    """Findings about the files of a snapshot, which are read and hashed, and about their tensors.

    names: of the files in its folder. deep: also decode the weights and compare their digest.
    """
    findings: list[Finding] = []
    for name, facts in manifest["files"].items():
        key = f"{snapshot.folder}/{name}"
        if name not in names:
            findings.append(missing(key, "is named by its manifest"))
            continue
        size, sha = sha256(snapshot.store, key, heard)
        if size != facts["size"]:
            findings.append(damaged(key, f"has {size} bytes, and its manifest says {facts['size']}"))
        elif sha != facts["sha256"]:
            findings.append(damaged(key, f"has SHA-256 {sha[:12]}, and its manifest says {facts['sha256'][:12]}"))
    if not findings:
        findings = _header(snapshot, manifest)
    if deep and not findings:
        findings = _check_decoding(snapshot, manifest)
    return findings


def check_snapshot(snapshot: Snapshot, step: int, *, deep: bool = False) -> list[Finding]:
    """All findings about one snapshot: manifest, relations and contents. Errors: FileNotFoundError."""
    read = read_manifest(snapshot, step)
    if read.manifest is None:
        return list(read.findings)
    near = {read.manifest["parent"], (read.manifest.get("base") or {}).get("step")} - {None}
    others = {s: read_manifest(snapshot.sibling(s), s) for s in near if snapshot.sibling(s).is_committed()}
    relations = check_relations(snapshot, read.manifest, others)
    names = snapshot.store.list(snapshot.folder)
    return [*read.findings, *relations, *check_contents(snapshot, read.manifest, names, deep=deep and not relations)]


def _header(snapshot: Snapshot, manifest: Mapping[str, Any]) -> list[Finding]:
    """Findings where the manifest's tensors differ from those in the files' headers."""
    stored, expected, findings = {}, _places(manifest), []
    for file in manifest["files"]:
        key = f"{snapshot.folder}/{file}"
        try:
            for name, ref in tensors.read_header(snapshot.store, key).tensors.items():
                stored[file, name] = (ref.begin, ref.end, ref.dtype, list(ref.shape))
        except ValueError as error:
            return [damaged(key, f"is not read: {str(error).splitlines()[0]}")]
    for file, name in sorted(stored.keys() ^ expected.keys()):
        extra = (file, name) in stored
        what = "is in its file and not in its manifest" if extra else "is in its manifest and not in its file"
        findings.append(damaged(snapshot.key, f"disagrees about tensor {name}, which {what}"))
    for file, name in sorted(stored.keys() & expected.keys()):
        actual, wanted = stored[file, name], expected[file, name]
        if actual[: len(wanted)] != wanted:  # the manifest holds no shape for a code
            what = f"disagrees with its file about tensor {name}: {wanted}, and {actual[: len(wanted)]} there"
            findings.append(damaged(snapshot.key, what))
    return findings


def _places(manifest: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The expected header entries by file and tensor: begin, end, dtype, and the shape unless the tensor is a code."""
    places = {}
    for name, tensor in manifest["tensors"].items():
        dtype = {None: tensor["dtype"], HALF: "BF16"}.get(tensor.get("code"), "U8")
        plain = () if dtype == "U8" else (tensor["shape"],)
        places[tensor["file"], name] = (tensor["begin"], tensor["end"], dtype, *plain)
        if view := tensor.get("view"):
            places[view["file"], name] = (view["begin"], view["end"], "U8")
    return places


def _check_decoding(snapshot: Snapshot, manifest: Mapping[str, Any]) -> list[Finding]:
    key = f"{snapshot.folder}/{WEIGHTS}"
    try:
        sha = tensors.sha256(tensors.read(snapshot.refs()))
    except ValueError as error:
        return [damaged(key, f"does not decode: {str(error).splitlines()[0]}")]
    want = digest(dict(manifest))
    return [] if sha == want else [damaged(key, f"decodes to weights {sha[:12]}, and its manifest says {want[:12]}")]
