"""A store that is full or read-only: one line with the object and the remedy, nothing truncated to be seen, nothing
lost, and the same call goes on when there is room."""

import errno
import os

import pytest

from pipelines import lake
from pipelines.maintenance.audit import audit
from pipelines.maintenance.sweeping import list_deletable
from pipelines.store.objects import REMEDIES, ROOM, Store, Unwritable
from pipelines.store.trajectory import Trajectory
from tests.pipelines.disks import Disk, mounted, read_only
from tests.pipelines.maintenance.planted import contents, facts, plant, weights

STEPS = (0, 1, 3)


@pytest.fixture
def disk(monkeypatch):
    return Disk().install(monkeypatch)


def trained(store):
    """A run of snapshots, a table and its end, as far as the store takes it; it is begun again after a refusal."""
    run, parent = Trajectory(store, "tiny.opd", 0), None
    run.register(facts("tiny.opd", 0))
    for step in STEPS:
        run.commit(step, weights(step), parent)
        parent = step
    lake.write(
        store, "training", [{"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": 1}], recipe="tiny.opd", seed=0
    )
    if run.end() is None:
        run.finish({"step": parent, "digest": run.digest(parent), "snapshots": list(STEPS), "evaluation": []})
    return run


def told(error, words, remedy=ROOM):
    line = str(error.value)
    assert "\n" not in line and "file://" in line
    for part in (words, remedy):
        assert part in line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = Store(f"file://{tmp_path_factory.mktemp('undisturbed')}")
    trained(store)
    return contents(store)


def test_wherever_the_disk_is_full_nothing_is_cut_short_and_the_same_call_goes_on(tmp_path, disk, undisturbed):
    total = sum(map(len, undisturbed.values()))
    for room in range(0, total, total // 16):
        store = Store(f"file://{tmp_path}/{room}")
        disk.room = room
        with pytest.raises(Unwritable) as error:
            trained(store)
        told(error, "No space left on device")
        assert all(data == undisturbed[key] for key, data in contents(store).items())
        assert {finding.kind for finding in audit(store, deep=True).findings} <= {"orphan"}
        disk.room = None
        trained(store)
        assert contents(store) == undisturbed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "create"])
def test_what_a_disk_refuses_names_the_object_and_the_remedy(call, number, files, disk):
    files.write("a/b", b"old")
    disk.broken = number
    with pytest.raises(Unwritable) as error:
        getattr(files, call)("a/b" if call == "write" else "a/c", b"new")
    told(error, os.strerror(number), REMEDIES[number])
    assert number == errno.EFBIG or "set OPD_STORE, or --out where it was given, to a store" in REMEDIES[number]
    assert contents(files) == {"a/b": b"old"}


def test_a_refused_write_leaves_no_temporary_file_to_hold_the_room(files, disk):
    disk.room = 10
    with pytest.raises(Unwritable, match="No space left"):
        files.write("a/b", bytes(1000))
    assert disk.room == 0 and disk.refused == 1
    assert [path for _, _, names in os.walk(files.path("")) for path in names] == []


def test_a_real_disk_that_fills_up(tmp_path):
    with mounted(tmp_path / "small", 256) as folder:
        store = Store(f"file://{folder}/store")
        run = plant(store, end=False, extras=False, steps=(0,))
        hog = folder / "hog"
        with pytest.raises(OSError, match="No space left"):
            hog.write_bytes(bytes(1 << 20))
        with pytest.raises(Unwritable) as error:
            run.commit(1, weights(1), 0)
        told(error, "No space left on device")
        assert run.snapshot(1).folder in str(error.value)
        with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\); set OPD_STORE"):
            store.require_writable()
        assert {finding.kind for finding in audit(store, deep=True).findings} <= {"orphan"}
        hog.unlink()
        assert run.commit(1, weights(1), 0)
        assert run.verify(1) == []


def test_a_real_disk_that_is_read_only(tmp_path):
    with mounted(tmp_path / "small", 1024) as folder:
        store = Store(f"file://{folder}/store")
        run = plant(store)
        read_only(folder)
        before = contents(store)
        for call in (
            lambda: store.write("a", b"1"),
            lambda: store.create("new/a", b"1"),
            lambda: run.commit(9, weights(9), 7),
            lambda: lake.write(store, "rotation", [], recipe="r", seed=1),
        ):
            with pytest.raises(Unwritable) as error:
                call()
            told(error, "Read-only file system", REMEDIES[errno.EROFS])
        with pytest.raises(ValueError, match=r"cannot be written \(Read-only file system\); set OPD_STORE"):
            store.require_writable()
        assert audit(store, deep=True).findings == ()
        assert list_deletable(store) == []
        assert contents(store) == before
        read_only(folder, False)
        run.commit(9, weights(9), 7)
        assert run.verify(9) == []
