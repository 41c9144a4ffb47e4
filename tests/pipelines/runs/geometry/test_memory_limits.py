"""A measuring task that would not fit is made smaller where no row changes by it, or refused in a line."""

import re

import pytest

from pipelines.runs.cluster import free_memory
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry import estimates, measuring, memory_limits, tasks
from pipelines.runs.geometry.memory_limits import GRAIN, SMALLEST, fit_tasks, requested_memory, shrink_task
from pipelines.runs.geometry.tasks import MatrixTask, Pair, Source
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store
from pipelines.store.tensors import ITEMSIZE, TensorRef
from pipelines.studies.study import TABLES, Measurement
from tests.pipelines.runs.conftest import CUTS, EMBED, everything, same

QWEN = (4096, 12288)  # the largest projection of Qwen3-8B
UNIT = 4 * QWEN[0] * QWEN[1]  # an f32 copy of it


def nowhere(store, role="gate", shape=QWEN, tables=TABLES, dtype="BF16", snapshots=1, code=None):
    """The task of a matrix whose bytes are nowhere, with so many snapshots."""
    size = ITEMSIZE[dtype] * shape[0] * shape[1]
    ref = TensorRef(store, "none", role, dtype, shape, 0, size, code)
    whole = MatrixRef(name=role, source=role, layer=0, role=role, ref=ref, shape=shape)
    pairs = tuple(Pair(step, Source("a", whole), Source(str(step), whole)) for step in range(1, snapshots + 1))
    return MatrixTask(
        store=store,
        prefix="runs/x",
        name=role,
        role=role,
        shape=shape,
        dtype=dtype,
        pairs=pairs,
        columns={},
        measurement=Measurement(tables=tables),
    )


@pytest.fixture
def task(store):
    """task(...): as `nowhere`."""
    return lambda *given, **named: nowhere(store, *given, **named)


@pytest.fixture
def said(caplog):
    """The lines that were told so far."""
    return lambda: [record.getMessage() for record in caplog.records if record.name == "opd"]


@pytest.mark.parametrize(
    ("tables", "measured"), [(("rotation",), 5.0), (("rotation", "spectral_drift"), 5.7)], ids=["rotation", "nss"]
)
def test_what_is_asked_for_is_what_the_bench_saw(task, tables, measured):
    # Figure 4 of `make bench`, in f32 copies of the largest matrix beyond what a worker holds after its imports.
    counted = (task(tables=tables).memory - estimates.PROCESS) / UNIT
    assert measured <= counted <= 1.3 * measured


def test_more_of_anything_takes_more(task):
    whole = task().memory
    assert task(tables=("rotation",)).memory < task(tables=("rotation", "nulls")).memory <= whole
    assert task(dtype="F32").memory > whole, "its bytes, and the subspaces of two views"
    assert task(dtype="F32", code="x").memory >= task(dtype="F32").memory
    of = lambda count, dtype: task(tables=("locking",), snapshots=count, dtype=dtype).memory
    assert of(101, "BF16") - of(1, "BF16") == 100 * estimates.COLUMNS * (4 * sum(QWEN) + 8 * max(QWEN))
    assert of(101, "F32") - of(1, "F32") == 100 * estimates.COLUMNS * (8 * sum(QWEN) + 8 * max(QWEN))
    assert task().memory_of(()) == 0


def test_ray_is_asked_in_steps(task):
    small, large = requested_memory(task(shape=(8, 8))), requested_memory(task())
    assert small == requested_memory(task(shape=(64, 64))) < large
    assert 0 <= large - task().memory < GRAIN and large % GRAIN == 0


def test_what_fits_is_left_as_it_is(task, said):
    work = [task(), task("embed")]
    assert fit_tasks(work, max(one.memory for one in work)) == work
    assert fit_tasks(work, float("inf"))[0] is work[0]
    assert said() == []


def test_an_embedding_is_compared_in_blocks_as_small_as_it_takes(task, said):
    embedding = task("embed", (150_000, 4096), ("update_support",))
    at_once, room = embedding.at_once, estimates.PROCESS + 60 * 2**20
    (found,) = fit_tasks([embedding], room)
    assert SMALLEST <= found.at_once < at_once and found.memory <= room < embedding.memory
    assert shrink_task(found).at_once < found.at_once or found.at_once == SMALLEST
    (line,) = said()
    assert re.match(r"embed: .* of memory are needed and a worker can have .*; it is compared in blocks of ", line)
    least = embedding
    for _ in range(9):
        least = shrink_task(least)
    assert least.at_once == SMALLEST and shrink_task(least) is least
    assert shrink_task(task()) == task(), "a projection is held whole"


def test_what_does_not_fit_is_refused_in_a_line_with_bytes_and_remedy(task):
    whole, rest = task(), task(tables=tuple(table for table in TABLES if table != "nulls"))
    room = (whole.memory + rest.memory) // 2
    with pytest.raises(ValueError) as caught:
        fit_tasks([whole], room)
    gb = lambda count: f"{count / 1e9:.1f} GB"
    assert str(caught.value) == (
        f"gate needs {gb(whole.memory)} of memory and a worker can have {gb(room)}; leave out nulls, which is then "
        f"{gb(rest.memory)}, or use a machine with more memory (RAY_ADDRESS names a cluster)"
    )
    with pytest.raises(ValueError, match=r"^gate needs .* and a worker can have 1 MB; use a machine with more memory"):
        fit_tasks([whole], 10**6)
    with pytest.raises(ValueError, match=r"^embed needs .* and a worker can have 1 MB; use a machine"):
        fit_tasks([task("embed", (150_000, 4096), ("update_support",))], 10**6)


def test_what_was_measured_before_needs_nothing(folders, store, monkeypatch):
    given = [(1, folders["one"])]
    measure_import(plan_import(store, folders["base"], given, CUTS, "x"), serial=True)
    work = plan_import(store, folders["base"], [(2, folders["two"])], CUTS, "x").work
    with pytest.raises(ValueError, match="needs"):
        fit_tasks(work, 10)
    kept = [one for one in plan_import(store, folders["base"], given, CUTS, "y").work]
    monkeypatch.setattr(memory_limits, "missing_units", lambda task, entries: {})
    assert fit_tasks(kept, 10) == kept


def test_a_measurement_without_room_is_refused_before_any_work(folders, store, monkeypatch):
    imported = plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    monkeypatch.setattr(free_memory, "read_free_memory", lambda: 1e6)
    with pytest.raises(ValueError, match=r" needs \d+\.\d GB of memory and a worker can have 1 MB; "):
        measure_import(imported, serial=True)
    assert not store.exists("lake") and not store.list("runs/external.x")


def test_smaller_blocks_give_the_same_rows(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "BLOCK", 200)
    monkeypatch.setattr(memory_limits, "SMALLEST", 50)
    whole, parts = (Store(f"file://{tmp_path}/{name}") for name in ("whole", "parts"))
    measure_import(plan_import(whole, folders["base"], [(1, folders["one"])], CUTS, "x"), serial=True)
    seen = []

    def made_smaller(work, room):
        seen.extend(one for one in map(shrink_task, work) if one.name == EMBED)
        return list(map(shrink_task, work))

    monkeypatch.setattr(measuring, "fit_tasks", made_smaller)
    measure_import(plan_import(parts, folders["base"], [(1, folders["one"])], CUTS, "x"), serial=True)
    assert [one.at_once for one in seen] == [50]
    assert same(everything(whole), everything(parts))


def test_free_memory_is_the_machines_or_what_its_container_leaves(tmp_path):
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    assert free_memory.read_free_memory(meminfo, cgroup) == float("inf")
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable:   100 kB\n")
    assert free_memory.read_free_memory(meminfo, cgroup) == 102_400
    cgroup.mkdir()
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("70000\n")
    assert free_memory.read_free_memory(meminfo, cgroup) == 102_400
    (cgroup / "memory.max").write_text("80000\n")
    assert free_memory.read_free_memory(meminfo, cgroup) == 10_000
    (cgroup / "memory.stat").write_text("anon 5\ninactive_file 3000\n")
    assert free_memory.read_free_memory(meminfo, cgroup) == 13_000
