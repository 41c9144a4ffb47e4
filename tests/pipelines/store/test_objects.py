"""The same behaviour on every backend; then what only files can get wrong: crashes and paths.

The file is longer than 350 lines because each operation is tried on three backends with the same fixtures.
"""

import multiprocessing
import os
import pickle
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.store import objects
from pipelines.store.objects import Store, default_uri, normalise
from tests.pipelines.store.racing import race

DATA = bytes(range(256)) * 3
ODD = (
    "a space", "größe-漢字-é", "100%", "50%20", "a+b", "a#b", "a&b=c", "it's", 'a"b', "[1]", "star*", "what?", "{x}",
    "~", "@at", "a,b;c:d", "a::b", "memory::x", "..a", "$x", "!", "(1)", "a|b", "<x>", "^`",
)  # fmt: skip


def elsewhere(store):
    """Another client of the store, with caches of its own."""
    type(store._filesystem[0]).clear_instance_cache()
    other = Store(store.uri)
    assert other._filesystem[0] is not store._filesystem[0]
    return other


def ask(environment, store, method, *given):
    """In a process of its own: what a method of the store returns there."""
    os.environ.update(environment)
    return getattr(store, method)(*given)


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


class Behaviour:
    """What a store does on whatever backend; `store` is an empty one."""

    turns: int

    def test_a_version_changes_when_an_object_is_written_again(self, store):
        store.write("a", b"one")
        before = store.version("a")
        assert Store(store.uri).version("a") == before
        store.write("a", b"two")
        assert store.version("a") != before
        with pytest.raises(FileNotFoundError):
            store.version("b")

    def test_a_written_object_reads_back_whole_and_in_ranges(self, store):
        store.write("a/b/c.bin", DATA)
        assert store.read("a/b/c.bin") == DATA
        assert store.read("a/b/c.bin", 0, 8) == DATA[:8]
        assert store.read("a/b/c.bin", 700, 768) == DATA[700:]
        assert store.read("a/b/c.bin", 255, 257) == b"\xff\x00"
        assert store.size("a/b/c.bin") == len(DATA)

    def test_a_write_replaces_the_whole_object(self, store):
        store.write("a", DATA)
        store.write("a", b"short")
        assert (store.read("a"), store.size("a")) == (b"short", 5)
        store.write("a", b"")
        assert (store.read("a"), store.size("a")) == (b"", 0)

    def test_only_the_first_create_of_a_name_wins(self, store):
        store.create("a/b", b"first")
        with pytest.raises(FileExistsError):
            store.create("a/b", b"second")
        store.write("c", b"written")
        with pytest.raises(FileExistsError):
            store.create("c", b"created")
        assert (store.read("a/b"), store.read("c")) == (b"first", b"written")
        assert store.list("a") == ["b"]

    @pytest.mark.parametrize("place", ["exp::a", "memory::x/c::d", "::"])
    def test_colons_in_an_address_are_characters_of_it(self, place, store):
        other, beside = Store(f"{store.uri}/{place}/store"), Store(f"{store.uri}/{place}b/store")
        other.write("a/b", b"one")
        beside.create("a/b", b"two")
        assert (other.read("a/b"), beside.read("a/b", 1, 3)) == (b"one", b"wo")
        assert other.find("") == ["a/b"] and other.list("") == ["a"] and list(other.list_objects("")) == ["a/b"]
        assert store.find("") == sorted([f"{place}/store/a/b", f"{place}b/store/a/b"])
        other.remove("a")
        assert store.find("") == [f"{place}b/store/a/b"]

    def test_a_removed_name_is_new_again(self, store):
        store.create("a/b", b"first")
        store.remove("a/b")
        store.create("a/b", b"second")
        assert store.read("a/b") == b"second"

    def test_absent_objects_are_not_found(self, store):
        for ask in (store.read, store.size, lambda key: store.read(key, 0, 8)):
            with pytest.raises(FileNotFoundError):
                ask("no/such/object")
        assert not store.exists("no/such/object")
        store.write("no/such/object", b"")
        assert store.exists("no/such/object") and store.exists("no/such")

    def test_a_listing_names_what_lies_directly_under_a_prefix(self, store):
        for key in ("runs/b/1", "runs/a", "runs/c/2/3", "runs/runs", "runsaway"):
            store.write(key, b"")
        assert store.list("runs") == store.list("runs/") == ["a", "b", "c", "runs"]
        assert store.list("runs/c") == ["2"]
        assert store.list("none") == []
        assert store.list("runs/a") == []

    def test_a_search_names_every_object_at_any_depth(self, store):
        keys = ["runs/a", "runs/b/1", "runs/b/c/2", "runs/runs/runs"]
        for key in (*keys, "runsaway", "other/x"):
            store.write(key, b"")
        assert store.find("runs") == keys
        assert store.find("runs/b") == keys[1:3]
        assert store.find("none") == []
        assert len(store.find("")) == 6

    def test_removing_takes_all_under_a_prefix_and_nothing_beside_it(self, store):
        for key in ("run/step-1/a", "run/step-1/deep/b", "run/step-10/a", "run/step-2/a"):
            store.write(key, b"x")
        store.remove("run/step-1")
        store.remove("run/none")
        assert store.list("run") == ["step-10", "step-2"]
        assert not store.exists("run/step-1/deep/b")
        store.remove("run/step-2/a")
        assert not store.exists("run/step-2/a")

    def test_a_store_that_can_be_written_is_left_as_it_was(self, store):
        store.write("a", b"")
        store.require_writable()
        assert store.list("") == ["a"]

    @pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "a\\..\\b", ".."])
    def test_a_key_cannot_leave_the_store(self, key, store):
        message = "would leave the store"
        for attempt in (store.read, store.exists, store.list, store.remove):
            with pytest.raises(ValueError, match=message):
                attempt(key)
        for attempt in (store.write, store.create):
            with pytest.raises(ValueError, match=message):
                attempt(key, b"")

    def test_dots_inside_a_name_are_a_name(self, store):
        store.write("runs/tiny.opd/a..b", b"x")
        assert store.list("runs/tiny.opd") == ["a..b"]

    def test_a_store_travels_as_its_uri(self, store):
        store.write("a", b"x")  # opens it
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store and vars(copy) == {"uri": store.uri}
        assert copy.read("a") == b"x"

    def test_odd_names_are_names(self, store):
        for name in ODD:
            store.create(f"odd/{name}/{name}", name.encode())
            assert store.read(f"odd/{name}/{name}", 0, 99) == name.encode()
            with pytest.raises(FileExistsError):
                store.create(f"odd/{name}/{name}", b"")
        assert store.list("odd") == sorted(ODD)
        assert store.find("odd") == sorted(f"odd/{name}/{name}" for name in ODD)
        for name in ODD:  # each takes itself only, though some are patterns to a shell
            assert store.list(f"odd/{name}") == [name] and store.size(f"odd/{name}/{name}") == len(name.encode())
            store.remove(f"odd/{name}")
            assert not store.exists(f"odd/{name}/{name}")
        assert store.find("odd") == []

    def test_a_pattern_removes_what_has_its_name(self, store):
        for name in ("run*", "run1", "run?", "[ab]", "a"):
            store.write(f"{name}/x", b"")
        for name in ("run*", "run?", "[ab]"):
            store.remove(name)
        assert store.find("") == ["a/x", "run1/x"]

    def test_an_empty_object_is_an_object(self, store):
        store.create("a", b"")
        assert (store.read("a"), store.read("a", 0, 8), store.size("a"), store.exists("a")) == (b"", b"", 0, True)
        with pytest.raises(FileExistsError):
            store.create("a", b"x")
        assert store.find("") == store.list("") == ["a"]

    @pytest.mark.parametrize(
        ("begin", "end", "part"),
        [(0, 0, b""), (5, 5, b""), (766, 900, DATA[766:]), (768, 900, b""), (5000, 5001, b""), (760, None, DATA[760:])],
    )
    def test_a_range_has_what_lies_in_it(self, begin, end, part, store):
        store.write("a", DATA)
        assert store.read("a", begin, end) == part
        with pytest.raises(FileNotFoundError):
            store.read("b", begin, end)

    def test_a_large_object_goes_up_in_parts_and_comes_back_whole(self, store, monkeypatch):
        monkeypatch.setattr(objects, "PART", 5 * 2**20)
        data = bytes(range(251)) * (11 * 2**20 // 251)
        assert len(data) > 2 * objects.PART
        store.create("a", data)
        assert store.read("a") == data and store.read("a", 2**20, 7 * 2**20) == data[2**20 : 7 * 2**20]
        with pytest.raises(FileExistsError):
            store.create("a", data[::-1])
        store.write("b", data[::-1])
        assert store.read("b") == data[::-1] and store.read("a") == data
        assert store.find("") == ["a", "b"]

    def test_an_error_names_the_object(self, store):
        for attempt in (store.read, store.size, store.version):
            with pytest.raises(FileNotFoundError) as caught:
                attempt("no/such")
            assert str(caught.value) == f"{store.uri}/no/such does not exist"
        store.write("a", b"")
        with pytest.raises(FileExistsError) as caught:
            store.create("a", b"")
        assert str(caught.value) == f"{store.uri}/a exists already"

    def test_of_eight_racing_creators_exactly_one_wins(self, store):
        for turn in range(self.turns):
            key = f"deep/{turn}/manifest.json"
            data = [bytes([racer]) * 10_000 for racer in range(8)]
            results = race(*[lambda d=d, key=key: store.create(key, d) for d in data])
            winners = [racer for racer, result in enumerate(results) if result is None]
            assert len(winners) == 1
            assert all(isinstance(result, FileExistsError) for result in results if result is not None)
            assert store.read(key) == data[winners[0]]
            assert store.list(f"deep/{turn}") == ["manifest.json"], "losers leave nothing behind"

    def test_racing_writers_leave_one_whole_object(self, store):
        data = [bytes([racer]) * 100_000 for racer in range(8)]
        assert race(*[lambda d=d: store.write("a", d) for d in data]) == [None] * 8
        assert store.read("a") in data and store.list("") == ["a"]

    def test_readers_of_one_object_do_not_disturb_each_other(self, store):
        store.write("a", DATA)
        reads = [
            lambda i=i: [store.read("a", i, i + 50) for _ in range(20)] == [DATA[i : i + 50]] * 20 for i in range(8)
        ]
        assert race(*reads) == [True] * 8

    def test_a_reader_sees_one_write_or_another(self, store):
        """Never the beginning of one and the end of another."""
        whole = [bytes([turn]) * 300_000 for turn in range(8)]
        store.write("a", whole[0])
        write = lambda: [store.write("a", data) for data in whole]
        read = lambda: [store.read("a") in whole for _ in range(12)]
        assert all(all(result) for result in race(write, read, read)[1:])
        assert store.read("a") == whole[-1]


class Others(Behaviour):
    """What a store does that others see: other clients, with caches of their own, and other processes."""

    def test_what_another_client_does_is_seen_at_once(self, store):
        other = elsewhere(store)
        for turn in range(5):
            assert other.list("a") == [str(n) for n in range(turn)], "nothing yet, and that is remembered by no cache"
            assert not other.exists(f"a/{turn}")
            store.write(f"a/{turn}", b"")
            assert other.list("a") == [str(n) for n in range(turn + 1)]
            assert other.find("") == [f"a/{n}" for n in range(turn + 1)] and other.exists(f"a/{turn}")
        store.remove("a/0")
        assert other.list("a") == store.list("a") == ["1", "2", "3", "4"] and not other.exists("a/0")
        with pytest.raises(FileNotFoundError):
            other.read("a/0")
        store.remove("a")
        assert not any(other.exists(f"a/{n}") for n in range(5)) and other.list("") == []

    def test_what_was_overwritten_is_never_read_again(self, store):
        other = elsewhere(store)
        for turn in range(10):
            data = bytes([turn]) * (10 + turn)
            store.write("a", data)
            assert (other.read("a"), other.read("a", 0, 4), other.size("a")) == (data, data[:4], len(data))
            assert other.version("a") == store.version("a")

    def test_a_name_that_another_client_made_is_taken(self, store):
        other = elsewhere(store)
        assert not other.exists("a")
        store.create("a", b"first")
        with pytest.raises(FileExistsError):
            other.create("a", b"second")
        store.remove("a")
        other.create("a", b"third")
        assert store.read("a") == b"third"

    def test_another_process_sees_the_same(self, store, processes):
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        there = lambda *asked: processes.submit(ask, environment, store, *asked).result(60)
        assert there("list", "a") == []
        store.write("a/1", b"here")
        assert there("list", "a") == ["1"] and there("read", "a/1") == b"here"
        there("write", "a/1", b"there")
        there("write", "a/2", b"")
        assert store.read("a/1") == b"there" and store.list("a") == ["1", "2"]
        with pytest.raises(FileExistsError, match=r"a/2 exists already$"):
            there("create", "a/2", b"x")
        there("remove", "a/1")
        assert not store.exists("a/1") and store.find("") == ["a/2"]


class TestMemory(Behaviour):
    turns = 50

    @pytest.fixture
    def store(self):
        return Store(f"memory://{uuid.uuid4().hex}")


class TestFiles(Others):
    turns = 10

    @pytest.fixture
    def store(self, tmp_path):
        return Store(f"file://{tmp_path}/a store")


class TestS3(Others):
    turns = 1  # SeaweedFS looks once a second whether the name is free to be written

    @pytest.fixture
    def store(self, s3):
        return s3

    def test_a_listing_goes_on_after_its_first_thousand(self, store):
        names = [f"{n:04}" for n in range(1003)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: store.write(f"a/{name}", b""), names))
        assert store.list("a") == names and store.find("a") == [f"a/{name}" for name in names]
        store.remove("a")
        assert store.find("a") == store.list("a") == []


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}")


class Crash(BaseException):
    pass


def crash(*_, **__):
    raise Crash


@pytest.mark.parametrize(("method", "call"), [("write", "replace"), ("create", "link")])
def test_a_crash_before_the_rename_leaves_no_object(method, call, files, monkeypatch):
    monkeypatch.setattr(os, call, crash)
    with pytest.raises(Crash):
        getattr(files, method)("a/b", DATA)
    monkeypatch.undo()
    assert not files.exists("a/b")
    files.create("a/b", DATA)
    assert files.read("a/b") == DATA


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_of_a_rewrite_leaves_the_old_object(call, files, monkeypatch):
    files.write("a", b"old")
    monkeypatch.setattr(os, call, crash)
    with pytest.raises(Crash):
        files.write("a", b"new")
    assert files.read("a") == b"old"


def test_bytes_are_on_disk_before_they_have_a_name(files, monkeypatch):
    order = []
    for call in ("fsync", "replace", "link"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, call=call, real=real: (order.append(call), real(*a)))
    files.write("a", DATA)
    files.create("b", DATA)
    assert order == ["fsync", "replace", "fsync", "link"]


def test_a_lost_conditional_put_of_seaweedfs_is_a_file_that_exists(s3, monkeypatch):
    s3.write("a", b"first")
    fs = s3._filesystem[0]
    monkeypatch.setattr(fs, "pipe_file", lambda *a, **k: (_ for _ in ()).throw(OSError(22, "Invalid argument")))
    with pytest.raises(FileExistsError):
        s3.create("a", b"second")
    with pytest.raises(OSError, match="Invalid argument") as caught:
        s3.create("b", b"second")  # nothing is there, so it was something else
    assert not isinstance(caught.value, FileExistsError)


def test_s3_never_waits_for_ever():
    config = objects.S3["config_kwargs"]
    assert 0 < config["connect_timeout"] <= 60 and 0 < config["read_timeout"] <= 600


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("/data/store/", "file:///data/store"),
        ("/data/my store/50%20#1", "file:///data/my store/50%20#1"),
        ("file:///data/store//", "file:///data/store"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("memory://", "memory://"),
        ("memory://x/", "memory://x"),
    ],
)
def test_a_place_has_one_uri(given, uri):
    assert normalise(given) == uri
    assert normalise(normalise(given)) == uri


def test_relative_paths_and_homes_are_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert normalise("out/store") == f"file://{tmp_path}/out/store"
    assert normalise("~/store") == f"file://{tmp_path}/home/store"


def test_a_path_with_odd_characters_is_that_folder(tmp_path):
    folder = tmp_path / "ein Ort" / "50%20 größe"
    Store(normalise(str(folder))).write("a/b", b"x")
    assert (folder / "a" / "b").read_bytes() == b"x"


def test_the_default_store_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        monkeypatch.delenv("OPD_STORE", raising=False) if value is None else monkeypatch.setenv("OPD_STORE", value)
        assert default_uri() == f"file://{tmp_path}/.opd/store"
    monkeypatch.setenv("OPD_STORE", "s3://bucket/x/")
    assert default_uri() == "s3://bucket/x"


def test_a_store_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    Path(tmp_path, "file").write_text("")
    store = Store(f"file://{tmp_path}/file/store")
    with pytest.raises(
        ValueError,
        match=rf"^store {store.uri} cannot be written \(.+\); "
        "set OPD_STORE, or --out where it was given, to one that can$",
    ):
        store.require_writable()


def test_an_absent_bucket_is_named(s3):
    with pytest.raises(ValueError, match=r"^store s3://no-such-bucket/x cannot be written \(.+\); set OPD_STORE"):
        Store("s3://no-such-bucket/x").require_writable()
