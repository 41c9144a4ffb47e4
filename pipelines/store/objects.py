"""An object store at a URI: whole-object writes, create-if-absent, range reads and listings through fsspec.

Objects appear atomically. On files, a write goes to a temporary file, then fsync, then `os.replace` (or `os.link` if
the name must be new). On S3, a write is one PUT, with `If-None-Match: *` if the name must be new; from `2 * PART` bytes
on, it is a multipart upload that one request completes.

Errors of the file system or server are raised as Refused, an OSError with the store's address and the object's name in
one line. Its subclasses Absent, Taken and Forbidden are also FileNotFoundError, FileExistsError and PermissionError.
Unwritable means that the store is full or read-only: the message ends with the remedy, and partial files are removed.
A request to S3 is sent at most ATTEMPTS times (twice that if the server closed idle connections). An interrupted
response is requested at most READS times.

The file is longer than 350 lines because the three backends (files, S3, memory) share one class and its error handling.
"""

import contextlib
import errno
import os
import posixpath
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.store.names import has_control_characters, repr_short

DEFAULT = ".opd/store"
ATTEMPTS, READS = 5, 3
PROBE = 4096  # bytes; an empty file can be written even to a full disk
PART = 50 * 2**20  # bytes of one part of a large upload
MARK = "written-by"  # S3 metadata of an object: a random number for each write
DELETED = 1000  # keys in one request; the limit of S3
S3 = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 30,
        "read_timeout": 120,
        # The mode `standard` stops retrying after some hundred faults per process, however rare they are.
        "retries": {"mode": "legacy", "total_max_attempts": ATTEMPTS},
    },
}
# Remedies in the messages of a store that is full or read-only.
INSTEAD = "set OPD_STORE, or --out where it was given, to"
ROOM = f"make room there, or {INSTEAD} a store that has room, and the same command goes on"
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the largest size of a file there (ulimit -f), and the same command goes on",
    errno.EROFS: f"mount it writable, or {INSTEAD} a store that is, and the same command goes on",
}
_ONE_SLASH = re.compile(r"(s3a?|file|memory|gs|https?|hdfs):/(?!/)", re.IGNORECASE)
# fsspec's memory file system checks before it creates, and all readers of an object share one cursor.
_MEMORY = threading.RLock()


def default_uri() -> str:
    """`OPD_STORE`, or `.opd/store` under the working directory, as a URI."""
    return normalise(os.environ.get("OPD_STORE") or DEFAULT)


def normalise(uri: str) -> str:
    """A URI without a trailing slash. A bare path becomes file://, unescaped, since fsspec decodes nothing.

    Errors: ValueError for credentials, control characters, :: in the bucket, or one slash after the scheme.
    """
    if has_control_characters(uri):
        raise ValueError(f"the address {repr_short(uri)} has control characters; write it without")
    if slipped := _ONE_SLASH.match(uri):
        raise ValueError(f"the address {uri} has one slash after {slipped[1]}:, and would be a folder here; write two")
    if "://" not in uri:
        uri = f"file://{Path(uri).expanduser().absolute()}"
    _require_no_credentials(uri)
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rstrip('/')}"


class Refused(OSError):
    """An operation that the file system or server of a store refused. uri: the address of the store."""

    uri = ""


class Absent(Refused, FileNotFoundError):
    """The object does not exist."""


class Bucketless(Absent):
    """The bucket does not exist."""


class Taken(Refused, FileExistsError):
    """The object exists already."""


class Forbidden(Refused, PermissionError):
    """The permissions do not allow to read or write the object."""


class Unwritable(Refused):
    """The store is full or read-only. Committed objects are intact; the object being written does not exist."""


@dataclass(frozen=True)
class Listed:
    """An entry of a listing. size: bytes. modified: seconds since 1970 by the store's clock."""

    size: int
    modified: float

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> "Listed":
        # Files and memory report seconds, S3 reports a datetime.
        time = info.get("LastModified") or info.get("mtime") or info.get("created") or 0.0
        return cls(int(info["size"]), time.timestamp() if isinstance(time, datetime) else float(time))


@dataclass(frozen=True)
class Store:
    """Objects under `uri`. Holds no open connection, so it can be pickled and sent to workers."""

    uri: str

    def __post_init__(self) -> None:
        _require_no_credentials(self.uri)

    @cached_property
    def _filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            # Pass the protocol only: fsspec would open an address with :: in it as a chain of file systems.
            fs = fsspec.filesystem(self.uri.partition("://")[0], **(S3 if self._s3 else {}))
            root = str(fs._strip_protocol(self.uri))
            if isinstance(fs, MemoryFileSystem):  # it drops the leading slash if the address has ::
                root = f"/{root.lstrip('/')}"
        except (ValueError, TypeError, ImportError) as error:  # an unknown protocol, or its package is not installed
            raise ValueError(
                f"{self.uri} is no address of a store ({error}); use file://, memory:// or s3://"
            ) from None
        if self._s3:
            # botocore retries already; retries by s3fs would multiply them and hide lost answers.
            fs.retries = 1  # type: ignore[attr-defined]
        return fs, root.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    @property
    def local(self) -> bool:
        return isinstance(self._filesystem[0], LocalFileSystem)

    @property
    def _s3(self) -> bool:
        return self.uri.startswith(("s3://", "s3a://"))

    def path(self, key: str) -> str:
        """Full path of a key. Errors: ValueError for a key that leaves the store or has control characters."""
        if key.startswith("/") or {".", ".."} & set(key.split("/")) or "\\" in key:
            raise ValueError(
                f"object name {repr_short(key)} would leave the store {self.uri}; leave out /, \\, . and .."
            )
        if has_control_characters(key):
            raise ValueError(f"object name {repr_short(key)} has control characters, which no name in a store has")
        return posixpath.join(self._filesystem[1], key)

    def location(self, key: str) -> str:
        """The location of a key for messages: a path on files, a URI elsewhere."""
        return str(Path(self.path(key))) if self.local else f"{self.uri}/{key}"

    def write(self, key: str, data: bytes) -> None:
        """Write a whole object; atomically replaces an existing one."""
        path = self.path(key)
        with self._name_object_in_errors(key):
            if self.local:
                temporary = self._temporary(key, data)
                try:
                    os.replace(temporary, path)
                except OSError:
                    os.unlink(temporary)
                    raise
            elif self._s3:
                self._put(path, data)
            else:
                self._filesystem[0].pipe_file(path, data)

    def create(self, key: str, *parts: bytes | memoryview) -> None:
        """Write a whole object, the concatenation of `parts`, whose name must be new.

        Errors: FileExistsError if the name exists; of several racing writers, all but one get it.

        On S3 the answer may be lost after the server has stored the object, and the retried request then conflicts with
        the first. So after any error, the MARK of the stored object tells whether this call wrote it.
        """
        path = self.path(key)
        with self._name_object_in_errors(key):
            if self.local:
                temporary = self._temporary(key, *parts)
                try:
                    os.link(temporary, path)
                finally:
                    os.unlink(temporary)
            elif self._s3:
                self._put(path, b"".join(parts), create=True)
            else:
                self._filesystem[0].pipe_file(path, b"".join(parts), mode="create")

    def read(self, key: str, begin: int | None = None, end: int | None = None) -> bytes:
        """An object, or its bytes begin..end (fewer if it is shorter), of one version. Errors: FileNotFoundError."""
        path = self.path(key)
        with self._name_object_in_errors(key):
            return self._fetch(path, begin, end) if self._s3 else self._cat(path, begin, end)

    def size(self, key: str) -> int:
        path = self.path(key)
        with self._name_object_in_errors(key):
            return int(self._filesystem[0].size(path))  # type: ignore[arg-type]

    def stat(self, key: str) -> "Listed":
        """Size and modification time of an object. Errors: FileNotFoundError."""
        path = self.path(key)
        with self._name_object_in_errors(key):
            return Listed.from_info(self._filesystem[0].info(path))

    def version(self, key: str) -> str:
        """A string that changes when the object is written again: its ETag, or its modification time (files: ns)."""
        fs, path = self._filesystem[0], self.path(key)
        with self._name_object_in_errors(key):
            if self.local:
                return str(os.stat(path).st_mtime_ns)
            return str(fs.info(path).get("ETag") or fs.modified(path))

    def exists(self, key: str) -> bool:
        path = self.path(key)
        with self._name_object_in_errors(key):
            return bool(self._filesystem[0].exists(path))

    def store_exists(self) -> bool:
        """Whether the store exists: its folder, or an object under its prefix."""
        return os.path.isdir(self.path("")) if self.local else bool(self.list(""))

    def find(self, prefix: str) -> list[str]:
        """Keys of all objects under a prefix at any depth, sorted."""
        path = self.path(prefix)
        with self._name_object_in_errors(prefix):
            return self._find(path)

    def list_objects(self, prefix: str) -> dict[str, "Listed"]:
        """The keys that `find` returns, with size and modification time of each object, from listings only."""
        fs, root = self._filesystem
        path = self.path(prefix)
        with self._name_object_in_errors(prefix):
            fs.invalidate_cache()
            entries: Any = fs.find(path, detail=True)
        files = sorted((str(name), info) for name, info in entries.items() if info["type"] == "file")
        return {name.removeprefix(root).lstrip("/"): Listed.from_info(info) for name, info in files}

    def list(self, prefix: str) -> list[str]:
        """Names directly under a prefix, sorted; empty if it does not exist."""
        fs = self._filesystem[0]
        folder = self.path(prefix).rstrip("/")
        with self._name_object_in_errors(prefix):
            fs.invalidate_cache()
            try:
                names = {str(name).rstrip("/") for name in fs.ls(folder, detail=False)}
            except FileNotFoundError:
                return []
        # A prefix that is itself an object, or a directory marker, is listed as its own child.
        return sorted(posixpath.basename(name) for name in names - {folder})

    def remove(self, prefix: str) -> None:
        """Delete everything under a prefix."""
        fs, path = self._filesystem[0], self.path(prefix)
        with self._name_object_in_errors(prefix):
            if self.local:
                if fs.exists(path):
                    fs.rm(path, recursive=True)
                return
            # Key by key: fsspec would interpret brackets and stars in a name as a pattern.
            keys = self._find(path)
            if self._s3:
                self._delete(keys, path)
            else:
                for key in keys:
                    fs.rm_file(self.path(key))

    def move(self, source: str, target: str) -> None:
        """Rename an object and replace any object of the new name: atomic on files, copy and delete elsewhere.

        Errors: FileNotFoundError.
        """
        before, after = self.path(source), self.path(target)
        with self._name_object_in_errors(source):
            if not self.local:
                self._filesystem[0].cp_file(before, after)
            else:
                Path(after).parent.mkdir(parents=True, exist_ok=True)
                os.replace(before, after)
                with contextlib.suppress(OSError):  # stops at the first folder that is not empty
                    for folder in Path(before).parents:
                        if folder == Path(self._filesystem[1]):
                            break
                        folder.rmdir()
        if self._s3:  # also deletes empty folders, which SeaweedFS would still list
            self._delete([source], self.path(source.partition("/")[0]))
        elif not self.local:
            self.remove(source)

    def require_writable(self) -> None:
        """Write and delete a probe object. Errors: ValueError with the store's address if that fails."""
        key = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(key, bytes(PROBE))
            self.remove(key)
        except Exception as error:
            reason = _reason(error.__cause__ or error)
            raise ValueError(f"store {self.uri} cannot be written ({reason}); {INSTEAD} one that can") from None

    @contextlib.contextmanager
    def _name_object_in_errors(self, key: str) -> Iterator[None]:
        """Convert backend errors to Refused with the object's name; on the memory backend, hold the lock."""
        alone = _MEMORY if isinstance(self._filesystem[0], MemoryFileSystem) else contextlib.nullcontext()
        try:
            with alone:
                yield
        except Exception as error:
            if not _is_backend_error(error):
                if str(error).startswith("Invalid endpoint: "):
                    endpoint = str(error).partition(": ")[2]
                    raise ValueError(f"AWS_ENDPOINT_URL {endpoint} is no URL; write it as http://HOST:PORT") from error
                raise
            refused = self._refusal(f"{self.uri}/{key}".rstrip("/"), error)
            refused.uri = self.uri
            raise refused from error

    def _refusal(self, name: str, error: Exception) -> Refused:
        """The Refused for an object and the error that the file system or server raised."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if _code(error) == "NoSuchBucket":
                return Bucketless(f"{name}: {_reason(error)}")
            return Absent(f"{name} does not exist")
        if isinstance(error, FileExistsError):
            return Taken(f"{name} exists already")
        if remedy := REMEDIES.get(getattr(error, "errno", None) or 0):
            return Unwritable(f"{name}: {_reason(error)}; {remedy}")
        kind = Forbidden if isinstance(error, PermissionError) else Refused
        return kind(f"{name}: {_reason(error)}")

    def _put(self, path: str, data: bytes, create: bool = False) -> None:
        fs, mark = self._filesystem[0], uuid.uuid4().hex
        how = {"mode": "create"} if create else {}
        try:
            fs.pipe_file(path, data, chunksize=PART, Metadata={MARK: mark}, **how)
        except Exception as error:
            # FileNotFoundError on a write: the bucket is missing, or the answer to a completed upload was lost.
            if not _is_backend_error(error) or not (create or isinstance(error, FileNotFoundError)):
                raise
            stored = self._mark(path)
            if stored == mark:
                return
            if create and stored is not None and not isinstance(error, PermissionError):
                raise FileExistsError(path) from error
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise OSError(_reason(error)) from error
            raise

    def _mark(self, path: str) -> str | None:
        """The MARK of the stored object, empty if it has none; None if there is no object or no answer."""
        bucket, _, name = path.partition("/")
        try:
            answer = self._filesystem[0].call_s3("head_object", Bucket=bucket, Key=name)  # type: ignore[attr-defined]
        except Exception as error:
            if not _is_backend_error(error):
                raise
            return None  # the caller raises its own, earlier error
        return answer.get("Metadata", {}).get(MARK, "")

    def _fetch(self, path: str, begin: int | None = None, end: int | None = None) -> bytes:
        """Read from S3 in one request: the parts of several requests may come from different writes."""
        if begin is not None and begin == end:  # S3 has no empty range and would send the whole object
            self._filesystem[0].size(path)
            return b""
        for remaining in reversed(range(READS)):
            try:
                return self._cat(path, begin, end, max_concurrency=1)
            except Exception as error:
                if _code(error) == "InvalidRange":  # the range starts past the end
                    return b""
                if not remaining or not _broken_off(error):
                    raise
        raise AssertionError

    def _cat(self, path: str, begin: int | None, end: int | None, **how: int) -> bytes:
        # Keywords, because s3fs has a different third positional argument.
        return bytes(self._filesystem[0].cat_file(path, start=begin, end=end, **how))  # type: ignore[arg-type]

    def _find(self, path: str) -> "list[str]":
        fs, root = self._filesystem
        if self.local:  # fsspec would call stat on every file
            walked = os.walk(path, followlinks=True)
            files = [os.path.join(folder, name) for folder, _, names in walked for name in names]
            return sorted(name.removeprefix(root).lstrip("/") for name in (files or [path] * os.path.isfile(path)))
        fs.invalidate_cache()
        entries = fs.find(path, detail=True)  # includes empty folders on SeaweedFS
        return sorted(str(name).removeprefix(root).lstrip("/") for name in entries if entries[name]["type"] == "file")

    def _delete(self, keys: "list[str]", path: str) -> None:
        """Delete objects from S3, then their folders, which SeaweedFS would still list; it keeps non-empty ones."""
        bucket, _, start = path.partition("/")
        names = [self.path(key).partition("/")[2] for key in keys]
        folders = {name[: i + 1] for name in names for i in range(len(start), len(name)) if name[i] == "/"}
        for part in (names, sorted(folders, key=lambda folder: -folder.count("/"))):
            for first in range(0, len(part), DELETED):
                wanted = {"Objects": [{"Key": name} for name in part[first : first + DELETED]], "Quiet": True}
                answer = self._filesystem[0].call_s3("delete_objects", Bucket=bucket, Delete=wanted)  # type: ignore[attr-defined]
                if errors := answer.get("Errors"):
                    raise OSError(f"{errors[0]['Key']} was not deleted: {errors[0].get('Message', errors[0]['Code'])}")

    def _temporary(self, key: str, *parts: bytes | memoryview) -> str:
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):  # a partial file would occupy space on a full disk
                os.unlink(temporary)
            raise
        return str(temporary)


def _require_no_credentials(uri: str) -> None:
    """Errors: ValueError for credentials in an S3 address; the message leaves out the address, which holds secrets."""
    scheme, _, rest = uri.partition("://")
    place = rest.split("/")[0]
    if scheme not in ("s3", "s3a") or place.startswith("arn:"):
        return
    if "::" in place and "@" not in rest:  # a secret may contain a slash
        raise ValueError(
            "an s3:// address has :: in its bucket, which no bucket has in its name; give s3://BUCKET/PREFIX"
        )
    if ":" in place or "@" in place:
        raise ValueError(
            "an s3:// address with credentials in it is not taken: give s3://BUCKET/PREFIX, and the keys in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS credentials file"
        )


def _is_backend_error(error: Exception) -> bool:
    """Whether an error comes from the file system or the server, rather than from this code."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in (
        "botocore",
        "aiobotocore",
        "aiohttp",
    )


def _reason(error: BaseException) -> str:
    message = getattr(error, "strerror", None) or str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]


def _code(error: Exception) -> str | None:
    """The S3 error code, or None for another error."""
    return (getattr(error.__cause__, "response", None) or {}).get("Error", {}).get("Code")


def _broken_off(error: Exception) -> bool:
    """Whether the response body was interrupted. Earlier failures are retried by botocore already."""
    from aiobotocore.response import AioReadTimeoutError
    from aiohttp import ClientPayloadError
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    return isinstance(error, AioReadTimeoutError | ClientPayloadError | IncompleteReadError | ResponseStreamingError)
