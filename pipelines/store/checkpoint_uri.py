"""Resolves a REF: a Hugging Face folder, one .safetensors file, a URI prefix, or a name in the local hub cache.

Hub names are looked up in the cache that `hf download` fills; nothing is downloaded:
models--org--name/refs/<revision> holds a commit, and snapshots/<commit>/ its files.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.store.names import has_control_characters, repr_short
from pipelines.store.objects import Store, normalise

WEIGHTS = ".safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_WORD = r"\w[\w.-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}(?:/{_WORD})*))?", re.ASCII)


@dataclass(frozen=True)
class CheckpointUri:
    """A folder or prefix. file: the name of the weights file in it if the REF names a single file."""

    store: Store
    file: str | None = None

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.file}" if self.file else self.store.uri

    def __str__(self) -> str:
        return self.uri.removeprefix("file://")


def locate_checkpoint(ref: str) -> CheckpointUri:
    """The location that a REF names.

    Errors: ValueError for a local path that is absent or no weights file, and for a hub name that is not cached.
    """
    if has_control_characters(ref):
        raise ValueError(f"REF {repr_short(ref)} has control characters; write it without")
    if "://" in ref and not ref.startswith("file://"):
        uri = normalise(ref)
        _require_format(uri)
        folder, _, name = uri.rpartition("/")
        return CheckpointUri(Store(folder), name) if name.endswith(WEIGHTS) else CheckpointUri(Store(uri))
    path = Path(ref.removeprefix("file://")).expanduser()
    if path.is_dir() and ref:
        return CheckpointUri(Store(normalise(str(path))))
    if path.exists() and ref:
        _require_format(ref)
        if path.suffix != WEIGHTS:
            raise ValueError(f"{ref} is a file, but no {WEIGHTS}; name one, or a Hugging Face folder")
        return CheckpointUri(Store(normalise(str(path.parent))), path.name)
    if (match := _HUB.fullmatch(ref)) and path.suffix != WEIGHTS:
        return CheckpointUri(Store(normalise(str(_snapshot(match[1], match[2])))))
    raise ValueError(
        f"{ref or repr(ref)} does not exist; name a Hugging Face folder, a {WEIGHTS} file, a URI of one (s3://...), "
        "or ORG/NAME in the local hub cache"
    )


def _require_format(ref: str) -> None:
    if ref.endswith(PICKLED):
        raise ValueError(f"{ref} is pickled, which is not read; convert it with save_pretrained(FOLDER)")


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or f"{home}/hub")).expanduser()


def _snapshot(name: str, revision: str | None) -> Path:
    folder = _cache() / f"models--{name.replace('/', '--')}"
    pointer = folder / "refs" / (revision or "main")
    commit = pointer.read_text(errors="replace").strip() if pointer.is_file() else revision
    if commit is None or not re.fullmatch(_WORD, commit, re.ASCII) or not (folder / "snapshots" / commit).is_dir():
        wanted, option = (f"{name}@{revision}", f" --revision {revision}") if revision else (name, "")
        raise ValueError(
            f"{wanted} is neither a folder here nor in the hub cache {_cache()}; "
            f"fetch it with `hf download {name}{option}`, or name its folder"
        )
    return folder / "snapshots" / commit
