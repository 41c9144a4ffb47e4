"""An object store at a URI: whole-object writes, create-if-absent, range reads and listings through fsspec.

Nothing is ever streamed into its final name. On files a write is a temporary file, fsync, then `os.replace` (or
`os.link` where the name must be new); on S3 it is one PUT, with `If-None-Match: *` where it must be new, or from
`2 * PART` bytes on a multipart upload that one request completes.

What the file system or the server refuses is a Refused, an OSError that has the store's address and names the object in
its one line; as Absent, Taken and Forbidden it is a FileNotFoundError, a FileExistsError and a PermissionError too.
Where there is no room, or nothing may be written at all, it is Unwritable, and the line ends with the remedy; what was
half written is taken away again. A request to S3 is sent ATTEMPTS times at most (twice that, where the server has
closed connections that were kept open), and an answer that breaks off is asked for READS times at most.
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
PROBE = 4096  # bytes: a file of none fits on a full disk
PART = 50 * 2**20  # bytes of one part of a large upload
MARK = "written-by"  # metadata of an object on S3: a number drawn for each write
DELETED = 1000  # keys in one request; the limit of S3
S3 = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 30,
        "read_timeout": 120,
        # The mode `standard` stops repeating after some hundred faults of a process, however far they lie apart.
        "retries": {"mode": "legacy", "total_max_attempts": ATTEMPTS},
    },
}
# What a store that takes no more writes says, and what to do about it.
INSTEAD = "set OPD_STORE, or --out where it was given, to"
ROOM = f"make room there, or {INSTEAD} a store that has room, and the same command goes on"
REMEDIES = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the largest size of a file there (ulimit -f), and the same command goes on",
    errno.EROFS: f"mount it writable, or {INSTEAD} a store that is, and the same command goes on",
}
_ONE_SLASH = re.compile(r"(s3a?|file|memory|gs|https?|hdfs):/(?!/)", re.IGNORECASE)
# fsspec's memory looks before it creates, and all who read an object move one cursor.
_MEMORY = threading.RLock()


def default_uri() -> str:
    """`OPD_STORE`, or `.opd/store` under the working directory, as a URI."""
    return normalise(os.environ.get("OPD_STORE") or DEFAULT)


def normalise(uri: str) -> str:
    """A URI without a trailing slash; a bare path becomes file://, unescaped, since fsspec decodes nothing.

    Errors: ValueError for one with credentials or control characters in it, a bucket with ::, or one slash for two.
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
    """What the file system or the server of a store refused. uri: the address of the store."""

    uri = ""


class Absent(Refused, FileNotFoundError):
    """An object that is not there."""


class Bucketless(Absent):
    """An object of a bucket that is not there."""


class Taken(Refused, FileExistsError):
    """An object that is there already."""


class Forbidden(Refused, PermissionError):
    """An object that may not be read or written with these rights."""


class Unwritable(Refused):
    """A store that is full or read-only. What was committed is there, and what was being written is not."""


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

    def __post_init__(self) -> None:
        _require_no_credentials(self.uri)

    @cached_property
    def _filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            # By its protocol alone: fsspec would open an address with :: in it as a chain of file systems.
            fs = fsspec.filesystem(self.uri.partition("://")[0], **(S3 if self._s3 else {}))
            root = str(fs._strip_protocol(self.uri))
            if isinstance(fs, MemoryFileSystem):  # which leaves out the slash where it sees a chain
                root = f"/{root.lstrip('/')}"
        except (ValueError, TypeError, ImportError) as error:  # a protocol that is unknown, or is not installed
            raise ValueError(
                f"{self.uri} is no address of a store ({error}); use file://, memory:// or s3://"
            ) from None
        if self._s3:
            # s3fs would repeat what botocore has repeated already, and hide whether it did.
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
        """Full path of a key. Errors: ValueError for a key that would leave the store, or break a line."""
        if key.startswith("/") or {".", ".."} & set(key.split("/")) or "\\" in key:
            raise ValueError(
                f"object name {repr_short(key)} would leave the store {self.uri}; leave out /, \\, . and .."
            )
        if has_control_characters(key):
            raise ValueError(f"object name {repr_short(key)} has control characters, which no name in a store has")
        return posixpath.join(self._filesystem[1], key)

    def location(self, key: str) -> str:
        """A key as a person opens it: a path on files, a URI elsewhere."""
        return str(Path(self.path(key))) if self.local else f"{self.uri}/{key}"

    def write(self, key: str, data: bytes) -> None:
        """Put a whole object, replacing any previous one atomically."""
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
        """Put a whole object, of these parts, whose name must be new.

        Errors: FileExistsError, also to every racing loser.

        On S3 an answer may be lost after the server has acted, and the repeated request then loses to itself. So after
        anything but a plain yes, the mark of the object that is there decides who put it there.
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
        """An object as it was at one moment, or its bytes begin..end, fewer where it is shorter.

        Errors: FileNotFoundError.
        """
        path = self.path(key)
        with self._name_object_in_errors(key):
            return self._fetch(path, begin, end) if self._s3 else self._cat(path, begin, end)

    def size(self, key: str) -> int:
        path = self.path(key)
        with self._name_object_in_errors(key):
            return int(self._filesystem[0].size(path))  # type: ignore[arg-type]

    def stat(self, key: str) -> "Listed":
        """What a listing would show of an object. Errors: FileNotFoundError."""
        path = self.path(key)
        with self._name_object_in_errors(key):
            return Listed.of(self._filesystem[0].info(path))

    def version(self, key: str) -> str:
        """What changes when an object is written again: its ETag, or else its modification time (files: ns)."""
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
        """What `find` finds, with the size of each object and when it was written, from listings alone."""
        fs, root = self._filesystem
        path = self.path(prefix)
        with self._name_object_in_errors(prefix):
            fs.invalidate_cache()
            found: Any = fs.find(path, detail=True)
        files = sorted((str(name), info) for name, info in found.items() if info["type"] == "file")
        return {name.removeprefix(root).lstrip("/"): Listed.of(info) for name, info in files}

    def list(self, prefix: str) -> list[str]:
        """Names directly under a prefix, sorted; none when it does not exist."""
        fs = self._filesystem[0]
        folder = self.path(prefix).rstrip("/")
        with self._name_object_in_errors(prefix):
            fs.invalidate_cache()
            try:
                found = {str(name).rstrip("/") for name in fs.ls(folder, detail=False)}
            except FileNotFoundError:
                return []
        # A prefix that is itself an object, or a directory marker, is listed as its own child.
        return sorted(posixpath.basename(name) for name in found - {folder})

    def remove(self, prefix: str) -> None:
        """Delete everything under a prefix."""
        fs, path = self._filesystem[0], self.path(prefix)
        with self._name_object_in_errors(prefix):
            if self.local:
                if fs.exists(path):
                    fs.rm(path, recursive=True)
                return
            # By name, since fsspec would read brackets and stars in a name as a pattern.
            keys = self._find(path)
            if self._s3:
                self._delete(keys, path)
            else:
                for key in keys:
                    fs.rm_file(self.path(key))

    def move(self, source: str, target: str) -> None:
        """Give an object another name, replacing what has it: a rename on files, elsewhere a copy and then a deletion.

        Errors: FileNotFoundError.
        """
        before, after = self.path(source), self.path(target)
        with self._name_object_in_errors(source):
            if not self.local:
                self._filesystem[0].cp_file(before, after)
            else:
                Path(after).parent.mkdir(parents=True, exist_ok=True)
                os.replace(before, after)
                with contextlib.suppress(OSError):  # until a folder is not empty
                    for folder in Path(before).parents:
                        if folder == Path(self._filesystem[1]):
                            break
                        folder.rmdir()
        if self._s3:  # and the folders that SeaweedFS would go on listing, where they are empty
            self._delete([source], self.path(source.partition("/")[0]))
        elif not self.local:
            self.remove(source)

    def require_writable(self) -> None:
        """Errors: ValueError naming the store when a probe object cannot be written."""
        key = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(key, bytes(PROBE))
            self.remove(key)
        except Exception as error:
            reason = _reason(error.__cause__ or error)
            raise ValueError(f"store {self.uri} cannot be written ({reason}); {INSTEAD} one that can") from None

    @contextlib.contextmanager
    def _name_object_in_errors(self, key: str) -> Iterator[None]:
        """What is refused names the object in one line; who asks the memory is alone."""
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
        """What is raised of an object's name for what the file system or the server raised."""
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
            # A write that is not found: there is no bucket; or an upload was completed, and the answer to that lost.
            if not _is_backend_error(error) or not (create or isinstance(error, FileNotFoundError)):
                raise
            found = self._mark(path)
            if found == mark:
                return
            if create and found is not None and not isinstance(error, PermissionError):
                raise FileExistsError(path) from error
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise OSError(_reason(error)) from error
            raise

    def _mark(self, path: str) -> str | None:
        """The mark of the object that is there, empty where it has none; None where no object is, or nobody answers."""
        bucket, _, name = path.partition("/")
        try:
            answer = self._filesystem[0].call_s3("head_object", Bucket=bucket, Key=name)  # type: ignore[attr-defined]
        except Exception as error:
            if not _is_backend_error(error):
                raise
            return None  # what went wrong first says more
        return answer.get("Metadata", {}).get(MARK, "")

    def _fetch(self, path: str, begin: int | None = None, end: int | None = None) -> bytes:
        """From S3, in one request, since the parts of several may be of several writes."""
        if begin is not None and begin == end:  # S3 has no empty range, and would send everything
            self._filesystem[0].size(path)
            return b""
        for left in reversed(range(READS)):
            try:
                return self._cat(path, begin, end, max_concurrency=1)
            except Exception as error:
                if _code(error) == "InvalidRange":  # nothing lies there
                    return b""
                if not left or not _broken_off(error):
                    raise
        raise AssertionError

    def _cat(self, path: str, begin: int | None, end: int | None, **how: int) -> bytes:
        # Keywords, because s3fs takes another argument in the third position.
        return bytes(self._filesystem[0].cat_file(path, start=begin, end=end, **how))  # type: ignore[arg-type]

    def _find(self, path: str) -> "list[str]":
        fs, root = self._filesystem
        if self.local:  # fsspec would ask the kernel for the facts of every file
            walked = os.walk(path, followlinks=True)
            files = [os.path.join(folder, name) for folder, _, names in walked for name in names]
            return sorted(name.removeprefix(root).lstrip("/") for name in (files or [path] * os.path.isfile(path)))
        fs.invalidate_cache()
        found = fs.find(path, detail=True)  # a folder that SeaweedFS keeps, empty, is found as itself
        return sorted(str(name).removeprefix(root).lstrip("/") for name in found if found[name]["type"] == "file")

    def _delete(self, keys: "list[str]", path: str) -> None:
        """From S3: objects, then the folders that SeaweedFS would go on listing, empty; it keeps those that are not."""
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
            with contextlib.suppress(OSError):  # on a full disk it would hold the room that others need
                os.unlink(temporary)
            raise
        return str(temporary)


def _require_no_credentials(uri: str) -> None:
    """Errors: ValueError, which says nothing of the address, since parts of it are secret."""
    scheme, _, rest = uri.partition("://")
    place = rest.split("/")[0]
    if scheme not in ("s3", "s3a") or place.startswith("arn:"):
        return
    if "::" in place and "@" not in rest:  # a secret may hold a slash
        raise ValueError(
            "an s3:// address has :: in its bucket, which no bucket has in its name; give s3://BUCKET/PREFIX"
        )
    if ":" in place or "@" in place:
        raise ValueError(
            "an s3:// address with credentials in it is not taken: give s3://BUCKET/PREFIX, and the keys in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS credentials file"
        )


def _is_backend_error(error: Exception) -> bool:
    """Whether an error comes from the file system or the server, not from this program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in (
        "botocore",
        "aiobotocore",
        "aiohttp",
    )


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0]


def _code(error: Exception) -> str | None:
    """S3's name of an error, where it is one."""
    return (getattr(error.__cause__, "response", None) or {}).get("Error", {}).get("Code")


def _broken_off(error: Exception) -> bool:
    """Whether S3 answered and the body did not come whole; what came before was repeated by botocore."""
    from aiobotocore.response import AioReadTimeoutError
    from aiohttp import ClientPayloadError
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    return isinstance(error, AioReadTimeoutError | ClientPayloadError | IncompleteReadError | ResponseStreamingError)
