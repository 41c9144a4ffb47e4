"""Messages for errors that a user can fix: one line that ends with the remedy.

The raising code attaches the facts to the error; this module does not guess them from the error's type.
"""

import errno

from pipelines.runs.cluster.worker_failures import WorkerFailed, describe_shortage, is_out_of_memory
from pipelines.store.objects import Absent, Bucketless, Refused, Unwritable, default_uri

OTHER = "check that address, and the right and the credentials to use it"
REMEDIES = {
    errno.EMFILE: "raise the number of files that a process may open (ulimit -n)",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "mount it writable, or name another place",
    errno.EACCES: "give the right to it, or name another place",
    errno.EPERM: "give the right to it, or name another place",
}


def line(error: BaseException) -> str | None:
    """The message; None for an unexpected error."""
    if is_out_of_memory(error):
        return describe_shortage(error)
    if isinstance(error, Absent) and not isinstance(error, Bucketless):
        return f"{_first(error)}; see `opd verify {error.uri}`" if error.uri else _first(error)
    if isinstance(error, Refused) and not isinstance(error, Unwritable):
        return f"{_first(error)}; {_remedy(error.uri)}"
    if isinstance(error, OSError) and error.filename is not None:
        remedy = REMEDIES.get(error.errno or 0)
        return f"{error.filename}: {error.strerror}{f'; {remedy}' if remedy else ''}"
    if isinstance(error, ValueError | FloatingPointError | WorkerFailed | OSError):
        return str(error) or type(error).__name__
    if of_tables(error):
        return f"the tables cannot be read ({_first(error)}); see `opd verify`"
    return None


def of_tables(error: BaseException) -> bool:
    """Whether Polars could not read a table; its lazy scans read only when rows are collected."""
    kind = type(error)
    return not is_out_of_memory(error) and (kind.__module__.startswith("polars") or kind.__name__ == "PanicException")


def code(error: BaseException) -> int:
    """The exit code of the error: 1 if work was interrupted, 2 for bad input."""
    return 1 if isinstance(error, WorkerFailed | Unwritable) or is_out_of_memory(error) else 2


def _remedy(uri: str) -> str:
    """What to check if a store refused access."""
    try:
        own = uri == default_uri()
    except ValueError:  # OPD_STORE is not a valid address
        own = False
    if own:
        return f"check OPD_STORE ({uri}), its address and credentials"
    return OTHER


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
