"""An object store at a URI: whole-object writes, create-if-absent, range reads and listings through fsspec.

Nothing is ever streamed into its final name. On files a write is a temporary file, fsync, then `os.replace` (or
`os.link` where the name must be new); on S3 it is one PUT, with `If-None-Match: *` where it must be new.
"""

import errno
import os
import posixpath
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

DEFAULT = ".opd/store"
S3 = {
    "use_listings_cache": False,
    "config_kwargs": {"connect_timeout": 30, "read_timeout": 120, "retries": {"max_attempts": 5}},
}


def default_uri() -> str:
    """`OPD_STORE`, or `.opd/store` under the working directory, as a URI."""
    return normalise(os.environ.get("OPD_STORE") or DEFAULT)


def normalise(uri: str) -> str:
    """A URI without a trailing slash; a bare path becomes file://, unescaped, since fsspec decodes nothing."""
    if "://" not in uri:
        uri = f"file://{Path(uri).expanduser().absolute()}"
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rstrip('/')}"


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it. size: bytes; modified: seconds since 1970, by the store's clock."""

    size: int
    modified: float

    @classmethod
    def of(cls, info: dict[str, Any]) -> "Listed":
        # Files and memory give seconds, S3 a date.
        time = info.get("LastModified") or info.get("mtime") or info.get("created") or 0.0
        return cls(int(info["size"]), time.timestamp() if isinstance(time, datetime) else float(time))


@dataclass(frozen=True)
class Store:
    """Objects under `uri`. Holds no connection, so it travels to workers as it is."""

    uri: str

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        fs, root = fsspec.core.url_to_fs(self.uri, **(S3 if self.uri.startswith("s3://") else {}))
        return fs, root.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    @property
    def local(self) -> bool:
        return isinstance(self._opened[0], LocalFileSystem)

    def path(self, key: str) -> str:
        """Full path of a key. Errors: ValueError for a key that would leave the store."""
        if key.startswith("/") or ".." in key.split("/") or "\\" in key:
            raise ValueError(f"object name {key!r} would leave the store {self.uri}")
        return posixpath.join(self._opened[1], key)

    def write(self, key: str, data: bytes) -> None:
        """Put a whole object, replacing any previous one atomically."""
        if not self.local:
            self._opened[0].pipe_file(self.path(key), data)
            return
        temporary = self._temporary(key, data)
        os.replace(temporary, self.path(key))

    def create(self, key: str, data: bytes) -> None:
        """Put a whole object whose name must be new. Errors: FileExistsError, also to every racing loser."""
        if self.local:
            temporary = self._temporary(key, data)
            try:
                os.link(temporary, self.path(key))
            finally:
                os.unlink(temporary)
            return
        try:
            self._opened[0].pipe_file(self.path(key), data, mode="create")
        except FileExistsError:
            raise
        except OSError as error:
            # SeaweedFS answers a lost conditional PUT in a way that s3fs maps to EINVAL.
            if error.errno == errno.EINVAL and self.exists(key):
                raise FileExistsError(key) from None
            raise

    def read(self, key: str, begin: int | None = None, end: int | None = None) -> bytes:
        """An object, or its bytes begin..end. Errors: FileNotFoundError."""
        # Keywords, because s3fs takes another argument in the third position.
        return bytes(self._opened[0].cat_file(self.path(key), start=begin, end=end))  # type: ignore[arg-type]

    def size(self, key: str) -> int:
        return int(self._opened[0].size(self.path(key)))  # type: ignore[arg-type]

    def version(self, key: str) -> str:
        """What changes when an object is written again: its ETag, or else its modification time (files: ns)."""
        fs, path = self._opened[0], self.path(key)
        if self.local:
            return str(os.stat(path).st_mtime_ns)
        return str(fs.info(path).get("ETag") or fs.modified(path))

    def exists(self, key: str) -> bool:
        return bool(self._opened[0].exists(self.path(key)))

    def find(self, prefix: str) -> list[str]:
        """Keys of all objects under a prefix at any depth, sorted."""
        fs, root = self._opened
        fs.invalidate_cache()
        return sorted(str(name).removeprefix(root).lstrip("/") for name in fs.find(self.path(prefix)))

    def listing(self, prefix: str) -> dict[str, "Listed"]:
        """What `find` finds, with the size of each object and when it was written, from listings alone."""
        fs, root = self._opened
        fs.invalidate_cache()
        found: Any = fs.find(self.path(prefix), detail=True)
        return {str(name).removeprefix(root).lstrip("/"): Listed.of(info) for name, info in sorted(found.items())}

    def list(self, prefix: str) -> list[str]:
        """Names directly under a prefix, sorted; none when it does not exist."""
        fs = self._opened[0]
        fs.invalidate_cache()
        folder = self.path(prefix).rstrip("/")
        try:
            found = {str(name).rstrip("/") for name in fs.ls(folder, detail=False)}
        except FileNotFoundError:
            return []
        # A prefix that is itself an object, or a directory marker, is listed as its own child.
        return sorted(posixpath.basename(name) for name in found - {folder})

    def remove(self, prefix: str) -> None:
        """Delete everything under a prefix."""
        if self.exists(prefix):
            self._opened[0].rm(self.path(prefix), recursive=True)

    def require_writable(self) -> None:
        """Errors: ValueError naming the store when a probe object cannot be written."""
        key = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(key, b"")
            self._opened[0].rm(self.path(key))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"store {self.uri} cannot be written ({reason}); set OPD_STORE to one that can") from None

    def _temporary(self, key: str, data: bytes) -> str:
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return str(temporary)
