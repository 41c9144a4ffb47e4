"""The same behaviour on every backend; then what only files can get wrong: races, crashes and paths."""

import os
import pickle
import threading
from pathlib import Path

import pytest

from pipelines.store import objects
from pipelines.store.objects import Store, default_uri, normalise

DATA = bytes(range(256)) * 3


def test_a_version_changes_when_an_object_is_written_again(any_store):
    any_store.write("a", b"one")
    before = any_store.version("a")
    assert Store(any_store.uri).version("a") == before
    any_store.write("a", b"two")
    assert any_store.version("a") != before
    with pytest.raises(FileNotFoundError):
        any_store.version("b")


def test_a_written_object_reads_back_whole_and_in_ranges(any_store):
    any_store.write("a/b/c.bin", DATA)
    assert any_store.read("a/b/c.bin") == DATA
    assert any_store.read("a/b/c.bin", 0, 8) == DATA[:8]
    assert any_store.read("a/b/c.bin", 700, 768) == DATA[700:]
    assert any_store.read("a/b/c.bin", 255, 257) == b"\xff\x00"
    assert any_store.size("a/b/c.bin") == len(DATA)


def test_a_write_replaces_the_whole_object(any_store):
    any_store.write("a", DATA)
    any_store.write("a", b"short")
    assert (any_store.read("a"), any_store.size("a")) == (b"short", 5)
    any_store.write("a", b"")
    assert (any_store.read("a"), any_store.size("a")) == (b"", 0)


def test_only_the_first_create_of_a_name_wins(any_store):
    any_store.create("a/b", b"first")
    with pytest.raises(FileExistsError):
        any_store.create("a/b", b"second")
    any_store.write("c", b"written")
    with pytest.raises(FileExistsError):
        any_store.create("c", b"created")
    assert (any_store.read("a/b"), any_store.read("c")) == (b"first", b"written")
    assert any_store.list("a") == ["b"]


def test_a_removed_name_is_new_again(any_store):
    any_store.create("a/b", b"first")
    any_store.remove("a/b")
    any_store.create("a/b", b"second")
    assert any_store.read("a/b") == b"second"


def test_absent_objects_are_not_found(any_store):
    for ask in (any_store.read, any_store.size, lambda key: any_store.read(key, 0, 8)):
        with pytest.raises(FileNotFoundError):
            ask("no/such/object")
    assert not any_store.exists("no/such/object")
    any_store.write("no/such/object", b"")
    assert any_store.exists("no/such/object") and any_store.exists("no/such")


def test_a_listing_names_what_lies_directly_under_a_prefix(any_store):
    for key in ("runs/b/1", "runs/a", "runs/c/2/3", "runs/runs", "runsaway"):
        any_store.write(key, b"")
    assert any_store.list("runs") == any_store.list("runs/") == ["a", "b", "c", "runs"]
    assert any_store.list("runs/c") == ["2"]
    assert any_store.list("none") == []
    assert any_store.list("runs/a") == []


def test_a_search_names_every_object_at_any_depth(any_store):
    keys = ["runs/a", "runs/b/1", "runs/b/c/2", "runs/runs/runs"]
    for key in (*keys, "runsaway", "other/x"):
        any_store.write(key, b"")
    assert any_store.find("runs") == keys
    assert any_store.find("runs/b") == keys[1:3]
    assert any_store.find("none") == []
    assert len(any_store.find("")) == 6


def test_a_listing_sees_what_another_process_wrote(any_store):
    other = Store(any_store.uri)
    any_store.write("a/1", b"")
    assert other.list("a") == ["1"]
    any_store.write("a/2", b"")
    assert other.list("a") == ["1", "2"]
    assert other.exists("a/2")


def test_removing_takes_all_under_a_prefix_and_nothing_beside_it(any_store):
    for key in ("run/step-1/a", "run/step-1/deep/b", "run/step-10/a", "run/step-2/a"):
        any_store.write(key, b"x")
    any_store.remove("run/step-1")
    any_store.remove("run/none")
    assert any_store.list("run") == ["step-10", "step-2"]
    assert not any_store.exists("run/step-1/deep/b")
    any_store.remove("run/step-2/a")
    assert not any_store.exists("run/step-2/a")


def test_a_store_that_can_be_written_is_left_as_it_was(any_store):
    any_store.write("a", b"")
    any_store.require_writable()
    assert any_store.list("") == ["a"]


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "a\\..\\b", ".."])
def test_a_key_cannot_leave_the_store(key, any_store):
    message = "would leave the store"
    for attempt in (any_store.read, any_store.exists, any_store.list, any_store.remove):
        with pytest.raises(ValueError, match=message):
            attempt(key)
    for attempt in (any_store.write, any_store.create):
        with pytest.raises(ValueError, match=message):
            attempt(key, b"")


def test_dots_inside_a_name_are_a_name(any_store):
    any_store.write("runs/tiny.opd/a..b", b"x")
    assert any_store.list("runs/tiny.opd") == ["a..b"]


def test_a_store_travels_as_its_uri(any_store):
    any_store.write("a", b"x")  # opens it
    copy = pickle.loads(pickle.dumps(any_store))
    assert copy == any_store and vars(copy) == {"uri": any_store.uri}
    assert copy.read("a") == b"x"


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}")


def race(attempts):
    """Run the callables at once; returns what each returned or raised."""
    barrier, results = threading.Barrier(len(attempts)), [None] * len(attempts)

    def run(index):
        barrier.wait()
        try:
            results[index] = attempts[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(attempts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_eight_racing_creators_exactly_one_wins(files):
    for turn in range(10):
        key = f"deep/{turn}/manifest.json"
        data = [bytes([racer]) * 10_000 for racer in range(8)]
        results = race([lambda d=d, key=key: files.create(key, d) for d in data])
        winners = [racer for racer, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert all(isinstance(result, FileExistsError) for result in results if result is not None)
        assert files.read(key) == data[winners[0]]
        assert files.list(f"deep/{turn}") == ["manifest.json"], "losers leave nothing behind"


def test_racing_writers_leave_one_whole_object(files):
    data = [bytes([racer]) * 100_000 for racer in range(8)]
    assert race([lambda d=d: files.write("a", d) for d in data]) == [None] * 8
    assert files.read("a") in data and files.list("") == ["a"]


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
    fs = s3._opened[0]
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
        ValueError, match=rf"^store {store.uri} cannot be written \(.+\); set OPD_STORE to one that can$"
    ):
        store.require_writable()


def test_an_absent_bucket_is_named(s3):
    with pytest.raises(ValueError, match=r"^store s3://no-such-bucket/x cannot be written \(.+\); set OPD_STORE"):
        Store("s3://no-such-bucket/x").require_writable()
