"""An error that a person can act on is one line, which names what it is about and nothing else."""

import errno
import pickle

import pytest

from pipelines import refusal
from pipelines.runs.cluster import free_memory
from pipelines.store.objects import Absent, Forbidden, Refused, Store, Taken, Unwritable


def refused(kind=Refused, uri="s3://theirs/run", said="s3://theirs/run/a: no"):
    error = kind(said)
    error.uri = uri
    return error


def test_what_a_store_refuses_is_told_of_that_store(monkeypatch):
    monkeypatch.setenv("OPD_STORE", "s3://mine/store")
    told = refusal.line(refused())
    assert told == "s3://theirs/run/a: no; check that address, and the right and the credentials to use it"
    told = refusal.line(refused(uri="s3://mine/store", said="s3://mine/store/a: no"))
    assert told == "s3://mine/store/a: no; check OPD_STORE (s3://mine/store), its address and credentials"
    monkeypatch.setenv("OPD_STORE", "s3://key:secret@bucket")
    assert refusal.line(refused()) == f"s3://theirs/run/a: no; {refusal.OTHER}"


def test_an_absent_object_is_no_matter_of_credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("OPD_STORE", f"file://{tmp_path}")
    with pytest.raises(Absent) as caught:
        Store(f"file://{tmp_path}").read("a/run.json")
    assert (
        refusal.line(caught.value) == f"file://{tmp_path}/a/run.json does not exist; see `opd verify file://{tmp_path}`"
    )


def test_a_bucket_that_is_absent_is_a_matter_of_the_address(s3, monkeypatch):
    monkeypatch.setenv("OPD_STORE", "s3://no-such-bucket/x")
    with pytest.raises(FileNotFoundError) as caught:
        Store("s3://no-such-bucket/x").read("a")
    assert refusal.line(caught.value) == (
        "s3://no-such-bucket/x/a: The specified bucket does not exist; check OPD_STORE (s3://no-such-bucket/x), its "
        "address and credentials"
    )


def test_what_a_store_raises_keeps_its_kind_and_address_on_its_way_from_a_worker(tmp_path):
    store = Store(f"file://{tmp_path}")
    store.create("a", b"x")
    (tmp_path / "folder").mkdir()
    for act, kind, foreign in (
        (lambda: store.read("b"), Absent, FileNotFoundError),
        (lambda: store.create("a", b"y"), Taken, FileExistsError),
        (lambda: store.read("folder"), Refused, OSError),
    ):
        with pytest.raises(foreign) as caught:
            act()
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(caught.value) is type(again) is kind and again.uri == store.uri
    assert issubclass(Forbidden, PermissionError) and issubclass(Unwritable, Refused)


def test_an_endpoint_that_is_no_url_names_its_variable():
    error = ValueError("Invalid endpoint: x:1")  # as botocore has it
    with (
        pytest.raises(ValueError, match=r"^AWS_ENDPOINT_URL x:1 is no URL; "),
        Store("memory://a")._name_object_in_errors("b"),
    ):
        raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/y"),
            "/x/y: Permission denied; give the right to it, or",
        ),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "/x: Too many open files; raise the number of files"),
        (OSError("no free port on 127.0.0.1"), "no free port on 127.0.0.1"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "[Errno 111] Connection refused"),
    ],
)
def test_an_error_of_something_else_is_not_taken_for_the_stores(error, told):
    line = refusal.line(error)
    assert line is not None and line.startswith(told) and "OPD_STORE" not in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libarrow.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("OS can't spawn worker thread: Resource temporarily unavailable"),
    ],
)
def test_low_memory_is_told_as_that_with_what_there_is(error, monkeypatch):
    monkeypatch.setattr(free_memory, "read_limits", lambda: {"ulimit -v": 1.5e9})
    monkeypatch.setattr(free_memory, "read_free_memory", lambda: 2e9)
    line = refusal.line(error)
    assert line is not None and line.startswith("memory is short here (")
    assert "2.0 GB are free; limited to 1.5 GB (ulimit -v)); free some, lift the limits" in line
    assert "verify" not in line and refusal.code(error) == 1


def test_what_nobody_foresaw_has_no_line():
    for error in (KeyError("q"), RuntimeError("odd"), ImportError("no module named x")):
        assert refusal.line(error) is None
