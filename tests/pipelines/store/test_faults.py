"""What S3 and the network do between client and server: nothing truncated is ever visible, retries are bounded, and the
error is one line that names the object.

The file is longer than 350 lines because every fault passes through the same proxy.
"""

import contextlib
import socket
import time
import uuid

import pytest
import torch

from pipelines.cli import main
from pipelines.store import objects
from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.objects import ATTEMPTS, READS, Store
from pipelines.store.trajectory import Trajectory
from tests.pipelines import faults

DATA = bytes(range(251)) * 4000  # 1 MB: more than the buffers of two sockets hold back
FACTS = {"identity": {"arm": "opd"}, "fingerprint": "f", "inputs": {"start": "0"}, "provenance": {"host": "here"}}
TWICE = 2 * ATTEMPTS  # aiohttp sends once more what it sent on a connection that was kept open and is closed
PATIENCE, IMPATIENCE = 30.0, 0.5  # seconds that a client waits for the next bytes


def opened(uri, patience, patch):
    """fsspec keeps clients by their settings, the patience among them: one past the proxy, and those through it."""
    patch.setitem(objects.S3["config_kwargs"], "read_timeout", patience)
    store = Store(uri)
    store.exists("connected")
    return store


@pytest.fixture(scope="module")
def line(s3_server):
    """The proxy before the server. Clients that were opened before go past it, those that are opened now go through."""
    import botocore.retryhandler
    import s3fs

    with pytest.MonkeyPatch.context() as patch, faults.between(s3_server.endpoint) as proxy:
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        opened("s3://opd", PATIENCE, patch)
        patch.setattr(botocore.retryhandler, "delay_exponential", lambda *_, **__: 0.01)
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def direct(line, monkeypatch):
    """An empty store as the server has it, past the proxy."""
    return opened(f"s3://opd/{uuid.uuid4().hex}", PATIENCE, monkeypatch)


@pytest.fixture
def patience():
    return PATIENCE + 1


@pytest.fixture
def store(direct, line, patience, monkeypatch):
    """The same store through the proxy."""
    return opened(direct.uri, patience, monkeypatch)


@pytest.fixture
def proxy(store, line):
    line.clear()
    yield line
    line.clear()


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(40, 30, generator=generator) for name in ("a.weight", "b.weight")}


@contextlib.contextmanager
def refused(store, key, reason=""):
    """An OSError of one line that begins with the object's name, within the time that bounded retries take."""
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        yield
    assert time.monotonic() - began < 60
    said = str(caught.value)
    assert said.startswith(f"{store.uri}/{key}".rstrip("/") + ": ") and reason in said and "\n" not in said
    assert not isinstance(caught.value, FileNotFoundError | FileExistsError)
    assert caught.value.__cause__ is not None


ASKS = {
    "write": ("PUT", lambda store: store.write("a/b", b"new")),
    "create": ("PUT", lambda store: store.create("a/c", b"new")),
    "read": ("GET", lambda store: store.read("a/b")),
    "read a range": ("GET", lambda store: store.read("a/b", 1, 3)),
    "size": ("HEAD", lambda store: store.size("a/b")),
    "version": ("HEAD", lambda store: store.version("a/b")),
    "exists": ("HEAD", lambda store: store.exists("a/b")),
    "list": ("GET", lambda store: store.list("a")),
    "find": ("GET", lambda store: store.find("a")),
    "remove": ("POST", lambda store: store.remove("a")),
}
EXPECTED = {
    "write": None, "create": None, "read": b"old", "read a range": b"ld", "size": 3, "exists": True, "list": ["b"],
    "find": ["a/b"], "remove": None,
}  # fmt: skip
NAMED = {"create": "a/c", "list": "a", "find": "a", "remove": "a"}


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
@pytest.mark.parametrize("ask", EXPECTED)
def test_a_server_that_fails_for_a_while_is_asked_again(ask, status, code, store, direct, proxy):
    direct.write("a/b", b"old")
    method, call = ASKS[ask]
    proxy.add("status", method, status=status, code=code, times=ATTEMPTS - 1)
    assert call(store) == EXPECTED[ask]
    assert proxy.faults[0].taken == ATTEMPTS - 1 and proxy.count(method) <= ATTEMPTS + 1  # a removal has two requests


@pytest.mark.parametrize("ask", ASKS)
def test_a_server_that_goes_on_failing_is_left_alone(ask, store, direct, proxy):
    """Also by `exists`: a snapshot that cannot be seen is not one that is absent."""
    direct.write("a/b", b"old")
    method, call = ASKS[ask]
    proxy.add("status", method, status=503, code="ServiceUnavailable")
    with refused(store, NAMED.get(ask, "a/b")):
        call(store)
    assert proxy.count(method) == ATTEMPTS
    assert direct.find("") == ["a/b"] and direct.read("a/b") == b"old"


@pytest.mark.parametrize("ask", ASKS)
def test_connections_that_are_always_reset_are_given_up(ask, store, direct, proxy):
    direct.write("a/b", b"old")
    method, call = ASKS[ask]
    proxy.add("reset request", method)
    with refused(store, NAMED.get(ask, "a/b")):
        call(store)
    assert ATTEMPTS <= proxy.count(method) <= TWICE


@pytest.mark.parametrize("method", ["write", "create"])
def test_an_upload_that_breaks_off_leaves_nothing(method, store, direct, proxy):
    proxy.add("reset request", "PUT")
    with refused(store, "a"):
        getattr(store, method)("a", DATA)
    assert ATTEMPTS <= proxy.count("PUT") <= TWICE and not direct.exists("a") and direct.find("") == []
    proxy.clear()
    proxy.add("reset request", "PUT", times=2)
    getattr(store, method)("a", DATA)
    assert direct.read("a") == DATA and proxy.count("PUT") == 3


def test_a_rewrite_that_breaks_off_leaves_what_was_there(store, direct, proxy):
    direct.write("a", b"old")
    proxy.add("reset request", "PUT")
    with refused(store, "a"):
        store.write("a", DATA)
    assert direct.read("a") == store.read("a") == b"old"


@pytest.mark.parametrize("kind", ["reset answer", "truncate"])
@pytest.mark.parametrize("where", [(), (1000, 900_000)])
def test_an_answer_that_breaks_off_is_never_taken_for_the_object(kind, where, store, direct, proxy):
    direct.write("a", DATA)
    proxy.add(kind, "GET", times=READS - 1)
    assert store.read("a", *where) == DATA[slice(*where) if where else slice(None)]
    assert proxy.count("GET") == READS
    proxy.clear()
    proxy.add(kind, "GET")
    with refused(store, "a"):
        store.read("a", *where)
    assert proxy.count("GET") == READS


@pytest.mark.parametrize("kind", ["reset answer", "truncate"])
def test_a_listing_that_breaks_off_is_no_shorter_listing(kind, store, direct, proxy):
    names = [f"{n:02}" for n in range(8)]
    for name in names:
        direct.write(f"a/{name}", b"")
    store._filesystem[0].req_kw = {"MaxKeys": 3}  # of a page
    assert store.list("a") == names and proxy.count("GET", "continuation-token") == 2
    proxy.add(kind, "GET", "continuation-token", times=2)
    assert store.list("a") == names
    proxy.clear()
    proxy.add(kind, "GET", "continuation-token")
    for ask in (store.list, store.find, store.remove):
        with refused(store, "a"):
            ask("a")
    assert proxy.count("GET", "continuation-token") == 3 * ATTEMPTS and direct.list("a") == names


class TestImpatient:
    @pytest.fixture
    def patience(self):
        return IMPATIENCE

    def test_slow_bytes_are_waited_for(self, store, direct, proxy, monkeypatch):
        direct.write("a", DATA)
        monkeypatch.setattr(faults, "PAUSE", 0.05)
        proxy.add("slow", "GET")
        began = time.monotonic()
        assert store.read("a") == DATA
        assert time.monotonic() - began > IMPATIENCE, "each wait is bounded, not their sum"

    @pytest.mark.parametrize("ask", ["write", "read", "list"])
    def test_a_server_that_says_nothing_is_given_up(self, ask, store, direct, proxy):
        direct.write("a/b", b"old")
        method, call = ASKS[ask]
        proxy.add("stall", method, seconds=3 * IMPATIENCE, times=1)
        assert call(store) == EXPECTED[ask] and proxy.count(method) >= 2
        proxy.clear()
        proxy.add("stall", method, seconds=3 * IMPATIENCE)
        with refused(store, NAMED.get(ask, "a/b"), "timeout"):
            call(store)
        assert ATTEMPTS <= proxy.count(method) <= TWICE


def test_a_server_that_is_not_there_is_named(store, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setitem(objects.S3["config_kwargs"], "read_timeout", PATIENCE + 2)
        for ask, (_, call) in ASKS.items():
            with refused(store, NAMED.get(ask, "a/b"), "Could not connect to the endpoint"):
                call(Store(store.uri))


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1, TWICE])
@pytest.mark.parametrize("data", [b"small", DATA, b""])
def test_a_create_whose_answer_was_lost_has_won(data, times, store, direct, proxy):
    """The server has acted, the repeated request loses to the first, and the mark of what is stored tells."""
    proxy.add("lose", "PUT", times=times)
    store.create("a", data)
    assert direct.read("a") == data and times <= proxy.count("PUT") <= TWICE


@pytest.mark.parametrize("theirs", [b"other bytes", b"the same"])
@pytest.mark.parametrize("times", [1, TWICE])
def test_a_create_whose_lost_answer_was_no_has_lost(times, theirs, store, direct, proxy):
    direct.create("a", theirs)
    proxy.add("lose", "PUT", times=times)
    with pytest.raises(FileExistsError) as caught:
        store.create("a", b"the same")
    assert str(caught.value) == f"{store.uri}/a exists already"
    assert direct.read("a") == theirs


def test_a_create_that_was_plainly_refused_has_lost_though_the_bytes_are_its_own(store, direct, proxy):
    direct.write("a", b"the same")
    with pytest.raises(FileExistsError):
        store.create("a", b"the same")
    assert proxy.count("PUT") == 1 and proxy.count("GET") == 0


@pytest.mark.parametrize("text", ["<Condition>If-None-Match</Condition>", ""])
def test_a_refusal_in_the_words_of_aws_is_a_file_that_exists(text, store, direct, proxy):
    direct.write("a", b"first")
    body = f"<Error><Code>PreconditionFailed</Code><Message>At least one failed</Message>{text}</Error>"
    proxy.add("status", "PUT", status=412, text=body)
    with pytest.raises(FileExistsError, match=r"/a exists already$"):
        store.create("a", b"second")
    if not text:  # nothing is there, and no condition is named: it was something else
        with refused(store, "b", "At least one failed"):
            store.create("b", b"second")


def test_a_create_that_nobody_can_judge_is_an_error(store, direct, proxy):
    proxy.add("lose", "PUT")
    proxy.add("status", "HEAD", status=503)
    with refused(store, "a"):
        store.create("a", b"mine")
    assert direct.read("a") == b"mine", "which the next attempt finds"


@pytest.mark.parametrize("method", ["write", "create"])
def test_a_large_upload_whose_last_answer_was_lost_is_there(method, store, direct, proxy, monkeypatch):
    monkeypatch.setattr(objects, "PART", 5 * 2**20)  # the least that S3 takes
    proxy.add("lose", "POST", "uploadId=", times=1)
    getattr(store, method)("a", DATA * 11)
    assert proxy.faults[0].taken == 1 and proxy.count("PUT", "partNumber=") >= 3
    assert direct.read("a") == DATA * 11


@pytest.mark.parametrize("method", ["write", "create"])
def test_a_large_upload_that_breaks_off_leaves_nothing(method, store, direct, proxy, monkeypatch):
    monkeypatch.setattr(objects, "PART", 300_000)
    proxy.add("reset request", "PUT", "partNumber=2")
    with refused(store, "a"):
        getattr(store, method)("a", DATA)
    assert ATTEMPTS <= proxy.count("PUT", "partNumber=2") <= TWICE and direct.find("") == []
    uploads = direct._filesystem[0].call_s3("list_multipart_uploads", Bucket="opd").get("Uploads", [])
    assert not [upload for upload in uploads if upload["Key"].endswith(store.uri.rpartition("/")[2] + "/a")]


def test_an_absent_bucket_is_an_error_of_a_write_and_no_missing_object(store):
    other = Store("s3://no-such-bucket/x")
    for attempt in (other.write, other.create):
        with refused(other, "a", "bucket does not exist"):
            attempt("a", b"x")


def test_a_deletion_that_was_refused_is_not_taken_for_done(store, direct, proxy):
    direct.write("a/b", b"old")
    error = "<Error><Key>x/a/b</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    proxy.add("status", "POST", "delete", status=200, text=f"<DeleteResult>{error}</DeleteResult>")
    with refused(store, "a", "x/a/b was not deleted: Access Denied"):
        store.remove("a")


def test_keys_that_do_not_open_the_store_are_an_error_of_rights(store, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setitem(objects.S3["config_kwargs"], "read_timeout", PATIENCE + 3)
    with pytest.raises(PermissionError) as caught:
        Store(store.uri).read("a")
    assert str(caught.value).startswith(f"{store.uri}/a: ") and "\n" not in str(caught.value)


def test_a_run_is_registered_and_committed_over_a_line_that_loses_answers(store, direct, proxy):
    proxy.add("lose", "PUT", "run.json", times=1)
    proxy.add("lose", "PUT", "master.safetensors", times=1)
    proxy.add("lose", "PUT", "manifest.json", times=1)
    run = Trajectory(store, "tiny.opd", 0)
    assert run.register(FACTS) == FACTS
    digest = run.commit(3, weights(), None)
    assert [fault.taken for fault in proxy.faults] == [1, 1, 1]
    there = Trajectory(direct, "tiny.opd", 0)
    assert there.digest(3) == digest and there.verify(3) == [] and there.run() == FACTS


@pytest.mark.parametrize("names", ["master.safetensors", "manifest.json"])
@pytest.mark.parametrize("kind", ["reset request", "status", "lose"])
def test_a_commit_over_a_broken_line_is_whole_or_not_there(kind, names, store, direct, proxy):
    proxy.add(kind, "PUT", names)
    if kind == "lose":
        Trajectory(store, "tiny.opd", 0).commit(3, weights(), None)
    else:
        with refused(store, f"runs/tiny.opd/seed-0/step-00000003/{names}"):
            Trajectory(store, "tiny.opd", 0).commit(3, weights(), None)
    there = Trajectory(direct, "tiny.opd", 0)
    assert there.steps() == ([3] if kind == "lose" else [])
    there.commit(3, weights(), None)  # what is left is no obstacle
    assert there.verify(3) == [] and torch.equal(there.refs(3)["a.weight"].read(), weights()["a.weight"])


def test_steps_that_cannot_be_listed_are_not_absent(store, direct, proxy):
    Trajectory(direct, "tiny.opd", 0).commit(3, weights(), None)
    proxy.add("status", "HEAD", "manifest.json", status=503)
    with refused(store, "runs/tiny.opd/seed-0/step-00000003/manifest.json"):
        Trajectory(store, "tiny.opd", 0).steps()


def test_the_command_line_and_a_checkpoint_say_it_in_one_line(store, proxy, monkeypatch, capsys):
    proxy.add("status", "", status=503, code="ServiceUnavailable")
    monkeypatch.setenv("OPD_STORE", store.uri)
    assert main(["tables"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {store.uri}/lake") and said.count("\n") == 1 and "check OPD_STORE" in said
    with pytest.raises(ValueError, match=rf"^base: {store.uri}/m cannot be read \(.+\); check the address") as caught:
        open_checkpoint("base", f"{store.uri}/m")
    assert "\n" not in str(caught.value)
