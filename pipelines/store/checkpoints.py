"""Opens checkpoints by reading headers and JSON only; tensors are not loaded.

A REF is a Hugging Face folder or a .safetensors file (a path, or any URI of an object store), ORG/NAME[@REVISION] in
the local hub cache, or a snapshot of this project (runs/<recipe>/seed-<n>/step-<8 digits>).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.store.checkpoint_uri import WEIGHTS, CheckpointUri, locate_checkpoint
from pipelines.store.json_object import is_count, parse_object
from pipelines.store.manifest import FIELDS
from pipelines.store.names import LONGEST, escape_text, repr_short, stays_inside
from pipelines.store.objects import Store
from pipelines.store.snapshot import LAYOUT, NEWER, Snapshot
from pipelines.store.tensors import ITEMSIZE, Header, TensorRef, read_header

FILE, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
OWN, MANIFEST = "master.safetensors", "manifest.json"
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
PACKED = ("weight", "weight_packed", "_blocks")  # ends of the names of quantized weights
BLOCK = 8 * 2**20  # bytes compared at a time


class Incomplete(ValueError):
    """A checkpoint that may still be being written: weights or shards are missing, or a file is truncated."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The float tensors of a model by name, with its metadata. who: the name of the checkpoint in messages.

    ref: canonical URI. config: config.json, or the model configuration that a run of this project recorded. stamp:
    SHA-256 over name, size, version (modification time in ns; ETag on S3) and header of each weights file. It changes
    when weights may have changed, and also when a folder is copied.
    """

    who: str
    ref: str
    tensors: dict[str, TensorRef]
    config: dict[str, Any] | None
    stamp: str

    def __str__(self) -> str:
        return f"{self.who} ({self.ref.removeprefix('file://')})"

    @cached_property
    def vocabulary(self) -> dict[str, int] | None:
        """Token ids by token; None without a tokenizer.json. Added tokens are left out: post-training renames them."""
        store = next(iter(self.tensors.values())).store
        if not store.exists(TOKENIZER):
            return None
        try:
            vocab = _object(store, TOKENIZER)["model"]["vocab"]
            ids: dict[Any, Any] = vocab if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}
        except (LookupError, TypeError):
            ids = {"": None}
        if not all(isinstance(token, str) and is_count(i) for token, i in ids.items()):
            raise ValueError(f"{CheckpointUri(store, TOKENIZER)} lists no vocabulary; remove it or bring the right one")
        return ids

    @property
    def head(self) -> TensorRef | None:
        """The stored output projection."""
        return self._find_tensor(HEADS)

    @property
    def embedding(self) -> TensorRef | None:
        """The token embedding."""
        return self._find_tensor(EMBEDDINGS)

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding: no head is stored and the configuration ties it, or both have equal bytes.

        Two stored tensors are read and compared only if the configuration ties them.
        """
        head, embedding = self.head, self.embedding
        if embedding is None:
            return False
        if head is None:
            return self._ties
        if (head.key, head.begin, head.end) == (embedding.key, embedding.begin, embedding.end):
            return head.shape == embedding.shape
        alike = (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
        return alike and self._ties and _same_bytes(head, embedding)

    def _find_tensor(self, ends: tuple[str, ...]) -> TensorRef | None:
        """The tensor whose name has one of these endings; the shortest name wins, since layers may have their own."""
        names = [name for name in self.tensors if name.endswith(ends)]
        return self.tensors[min(names, key=len)] if names else None

    @property
    def _ties(self) -> bool:
        """Whether the configuration ties head and embedding. An absent key means tied: that is the default."""
        if self.config is None:
            return False
        inner = self.config.get("text_config")
        default = inner.get("tie_word_embeddings", True) if isinstance(inner, dict) else True
        return self.config.get("tie_word_embeddings", default) is not False


def open_checkpoint(who: str, ref: str) -> Checkpoint:
    """The checkpoint that a REF names. Reads headers only.

    Errors: ValueError in one line that names `who`, the file and the remedy. Its subclass Incomplete is raised if the
    checkpoint may still be being written.
    """
    try:
        return _open(who, locate_checkpoint(ref))
    except ValueError as error:
        raise (
            type(error)(f"{who}: {error}") if isinstance(error, Incomplete) else ValueError(f"{who}: {error}")
        ) from None
    except Exception as error:
        if not is_storage_error(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kind = Incomplete if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{who}: {ref} cannot be read ({reason}); check the address and the right to read it") from None


def is_storage_error(error: Exception) -> bool:
    """Whether an error comes from the file system, the object store, or a missing client package."""
    return isinstance(error, OSError | ImportError) or type(error).__module__.startswith(("botocore", "aiobotocore"))


def _open(who: str, place: CheckpointUri) -> Checkpoint:
    store = place.store
    names = set(store.list(""))
    own = place.file is None and not names & {FILE, INDEX} and bool(names & {OWN, MANIFEST})
    files = _manifest(place, names) if own else _files(place, names)
    tensors: dict[str, TensorRef] = {}
    stamp = hashlib.sha256()
    for file in sorted(files):
        header = _header(store, file, files[file], own)
        stamp.update(json.dumps([file, header.size, store.version(file)]).encode() + header.data)
        tensors |= header.tensors
    if own:
        run, _, folder = store.uri.rpartition("/")
        tensors = Snapshot(Store(run), folder).refs()
    if not tensors:
        raise ValueError(f"the files of {place} hold no bf16, fp16, fp32 or fp64 tensor; save the model whole")
    if empty := sorted(name for name, ref in tensors.items() if 0 in ref.shape):
        raise ValueError(f"tensor {empty[0]} of {place} has shape {tensors[empty[0]].shape}; save the model whole")
    if all(".lora_" in name for name in tensors):
        raise ValueError(f"{place} is an adapter; merge it into its base and save the whole model")
    config = _read_recorded_config(store) if own else _object(store, CONFIG) if CONFIG in names else None
    return Checkpoint(who=who, ref=place.uri, tensors=tensors, config=config, stamp=stamp.hexdigest())


def _files(place: CheckpointUri, names: set[str]) -> dict[str, set[str] | None]:
    """Safetensors files of a model, each with the names of the tensors to read from it (None: all)."""
    if place.file:
        if place.file not in names:
            raise ValueError(f"{place} does not exist; name a Hugging Face folder or a {WEIGHTS} file")
        return {place.file: None}
    if FILE in names:
        return {FILE: None}
    if INDEX not in names:
        raise _without_weights(place, names)
    index, files = CheckpointUri(place.store, INDEX), dict[str, set[str] | None]()
    try:
        for name, file in _object(place.store, INDEX)["weight_map"].items():
            files[file] = (files.get(file) or set()) | {name}
    except (LookupError, TypeError, AttributeError):
        raise Incomplete(f"{index} has no weight_map of tensors to files; copy it again") from None
    for file in files:
        outside = not isinstance(file, str) or "/" in file or not stays_inside(file)
        if outside or file not in names:
            kind = ValueError if outside else Incomplete
            raise kind(f"{index} names the shard {repr_short(file)}, which is not in the folder; copy it there")
    return files


def _without_weights(place: CheckpointUri, names: set[str]) -> ValueError:
    """The error for a folder with neither a weights file nor an index."""
    kind, why, remedy = Incomplete, "and no other weights", f"name a folder with {FILE}, or with shards and their index"
    if not names and not place.store.local:
        return kind(f"{place} does not exist or is empty; name a Hugging Face folder or a {WEIGHTS} file")
    if any(name.startswith("pytorch_model") for name in names):
        kind, why, remedy = (
            ValueError,
            "but pickled ones, which are not read",
            "convert them with save_pretrained(FOLDER)",
        )
    elif "adapter_model.safetensors" in names:
        kind, why, remedy = ValueError, "but an adapter", "merge it into its base and save the whole model"
    elif others := sorted(name for name in names if name.endswith(WEIGHTS)):
        why, remedy = f"but {others[0]}", "bring the index of the shards, or name the file itself"
    return kind(f"{place} holds no {FILE} and no {INDEX}, {why}; {remedy}")


def _manifest(place: CheckpointUri, names: set[str]) -> dict[str, set[str] | None]:
    """The files of a snapshot of this project. Errors: Incomplete if a file does not have its committed size."""
    if MANIFEST not in names:
        raise Incomplete(f"{place} holds {OWN} and no {MANIFEST}, so it is not committed; let its run go on")
    manifest = _object(place.store, MANIFEST)
    where = CheckpointUri(place.store, MANIFEST)
    if manifest.get("layout") not in FIELDS:
        layout = manifest.get("layout")
        raise ValueError(f"{where} has layout {repr_short(layout)}; this version reads layouts 1 to {LAYOUT}: {NEWER}")
    try:
        sizes = {file: entry["size"] for file, entry in manifest["files"].items()}
    except (LookupError, TypeError, ValueError, AttributeError):
        sizes = {}
    if not sizes or not all(map(is_count, sizes.values())):
        raise ValueError(f"{where} lists no files and sizes; copy the snapshot again")
    for file, size in sizes.items():
        if file not in names or place.store.size(file) != size:
            raise Incomplete(
                f"{place} lacks {repr_short(file)[1:-1]} or differs from its manifest ({size} bytes); copy it again"
            )
    return dict.fromkeys(sizes)


def _read_recorded_config(store: Store) -> dict[str, Any] | None:
    """The model configuration in the run.json beside a snapshot of this project."""
    run = Store(store.uri.rpartition("/")[0])
    return _object(run, "run.json").get("model") if run.exists("run.json") else None


def _header(store: Store, file: str, wanted: set[str] | None, own: bool) -> Header:
    """Size, header and the wanted float tensors of a file. Errors: ValueError, also for quantized weights.

    own: the file belongs to a snapshot of this project, whose tensors may be encoded.
    """
    try:
        header = read_header(store, file)
    except ValueError as error:
        raise Incomplete(f"{str(error).splitlines()[0]}; copy or convert {file} again") from None
    place = CheckpointUri(store, file)
    if lacking := sorted((wanted or set()) - header.tensors.keys()):
        name = escape_text(lacking[0][:LONGEST])
        raise Incomplete(f"{place} lacks tensor {name}, which {INDEX} places there; copy both again")
    for name, ref in header.tensors.items():
        if (
            not own
            and ref.dtype not in ITEMSIZE
            and (name.endswith(PACKED) or ref.dtype.startswith(("F8", "F6", "F4")))
        ):
            raise ValueError(f"tensor {name} of {place} is quantized; save the model in bf16 or fp32")
    tensors = {name: ref for name, ref in header.tensors.items() if ref.dtype in ITEMSIZE}
    if wanted is not None:
        tensors = {name: ref for name, ref in tensors.items() if name in wanted}
    return Header(tensors, header.size, header.data)


def _same_bytes(left: TensorRef, right: TensorRef) -> bool:
    length = left.end - left.begin
    spans = ((begin, min(begin + BLOCK, length)) for begin in range(0, length, BLOCK))
    return all(
        left.store.read(left.key, left.begin + begin, left.begin + end)
        == right.store.read(right.key, right.begin + begin, right.begin + end)
        for begin, end in spans
    )


def _object(store: Store, key: str) -> dict[str, Any]:
    """The JSON object in a file. Errors: Incomplete, with the name of the file."""
    try:
        return dict(parse_object(store.read(key), str(CheckpointUri(store, key)), "copy it again"))
    except ValueError as error:
        raise Incomplete(str(error)) from None
