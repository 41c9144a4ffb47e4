"""`opd measure`: from checkpoints to tables.

The file is longer than 350 lines because all options of one command are tried on the same folders.
"""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
import torch

from pipelines import cli, lake
from pipelines.report import imported
from pipelines.runs.clock import Clock, write_timing
from pipelines.runs.geometry import records
from pipelines.runs.verdicts import reporting
from pipelines.store.objects import Store, default_uri
from pipelines.studies import pairs, steps
from pipelines.studies.study import TABLES
from tests.pipelines.cli.conftest import NORM, Q, save, weights
from tests.pipelines.regimes.conftest import references, tables

KEYS = ("matrix", "step", "step_other", "side", "view")


def test_folders_are_measured_into_tables_that_polars_reads_alone(measure, tmp_path):
    out = tmp_path / "a store"
    code, told, err = measure("--out", out)
    assert (code, err) == (0, "")
    assert (
        "external.mine: steps 100, 200 measured" in told
        and f"{out}/reports/external.mine/index.html (open it in a browser)" in told
    )
    ours = lake.scan("rotation", str(out)).filter(recipe="external.mine").collect()
    assert set(ours["step"]) == {100, 200}
    assert ours.filter(step=200)["mean_deg"].drop_nulls().mean() > ours.filter(step=100)["mean_deg"].mean() > 0
    plain = pl.scan_parquet(f"{out}/lake/rotation/recipe=*/seed=*/part-0.parquet").collect()
    assert plain.select(ours.columns).equals(ours)
    for table in TABLES:
        assert lake.scan(table, str(out)).collect().height > 0, table


def test_what_is_measured_has_a_page_that_is_written_again_as_it_was(opd, folders, here):
    given = ("--base", folders[0], "--snapshot", f"100={folders[100]}", "--name", "mine", "--workers", 0)
    code, told, err = opd("measure", *given)
    page = here / ".opd" / "store" / "reports" / "external.mine" / "index.html"
    assert (code, err) == (0, "") and f"page: {page.relative_to(here)} (open it in a browser)\n" in told
    before = page.read_text()
    assert "No regime: this store holds no study" in before and 'id="stable-rank"' in before
    page.unlink()
    for name in ("external.mine", "mine"):
        assert opd("report", name) == (0, f"page: {page.relative_to(here)} (open it in a browser)\n", "")
    assert page.read_text() == before


def test_what_is_measured_already_takes_none_of_the_heavy_libraries(folders, here):
    """In a process of its own, since this one has them."""
    asked = ["measure", "--base", folders[0], "--snapshot", f"100={folders[100]}", "--name", "mine", "--workers", "2"]
    script = (
        "import sys; from pipelines.cli import main; code = main(sys.argv[1:]); "
        "print(code, *sorted({'torch', 'scipy', 'altair', 'vl_convert', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    assert cli.main([*asked[:-1], "0"]) == 0
    again = subprocess.run([sys.executable, "-c", script, *asked], capture_output=True, text=True, check=True)
    assert again.stderr == "" and "steps 100 were measured already" in again.stdout
    assert again.stdout.splitlines()[-1] == "0"


@pytest.fixture
def paged(opd, folders, here, monkeypatch):
    """paged(): `opd measure` of one snapshot, and the page's bytes; told as drawn or not."""
    drawn = []
    page = imported.render_import
    monkeypatch.setattr(imported, "render_import", lambda *given, **more: drawn.append(1) or page(*given, **more))

    def run():
        drawn.clear()
        asked = ("--base", folders[0], "--snapshot", f"100={folders[100]}", "--name", "mine", "--workers", 0)
        assert opd("measure", *asked)[::2] == (0, "")
        return Store(default_uri()).read(reporting.report_key("external.mine")), bool(drawn)

    return run


CHANGES = {
    "the page is deleted": lambda store, patch: store.remove(reporting.report_key("external.mine")),
    "the page is damaged": lambda store, patch: store.write(reporting.report_key("external.mine"), b"<html>"),
    "the inputs are deleted, as an earlier version had none": lambda store, patch: store.remove(
        reporting.inputs_key("external.mine")
    ),
    "the inputs are damaged": lambda store, patch: store.write(reporting.inputs_key("external.mine"), b"{"),
    "another version drew it": lambda store, patch: patch.setattr(reporting, "hash_sources", lambda: "other"),
    "another commit drew it": lambda store, patch: patch.setattr(reporting, "commit", lambda: "other"),
    "a package is another": lambda store, patch: patch.setattr(reporting, "version", lambda name: "0"),
    "a table of its own is another": lambda store, patch: write_timing(store, "external", "external.mine", 0, 9, CLOCK),
    "the references are there": lambda store, patch: plant_references(store),
    "the record is another": lambda store, patch: records.write(
        store, "external.mine", {**(records.read(store, "external.mine") or {}), "provenance": {"commit": "other"}}, 0
    ),
}
CLOCK = Clock({"other": [1.0, 1.0]})
OTHER_PAGES = ("another commit drew it", "the record is another", "the references are there")


def plant_references(store):
    """Measured runs of every reference arm of `tiny`."""
    for name, frame in tables(references()).items():
        for (recipe, seed), part in frame.collect().partition_by("recipe", "seed", as_dict=True).items():
            lake.write(store, name, part, recipe=recipe, seed=seed)


@pytest.mark.parametrize("change", CHANGES)
def test_a_page_is_drawn_again_where_something_that_it_is_drawn_from_changed(change, paged, monkeypatch):
    store = Store(default_uri())
    before, drawn = paged()
    assert drawn and paged() == (before, False)
    CHANGES[change](store, monkeypatch)
    now, drawn = paged()
    assert drawn and now.startswith(b"<!doctype html>") and now.endswith(b"</html>\n")
    assert (now == before) == (change not in OTHER_PAGES)
    assert paged() == (now, False)


def test_a_page_knows_nothing_of_runs_that_it_never_shows(paged):
    before, _ = paged()
    write_timing(Store(default_uri()), "tiny", "tiny.sft-matched", 0, 9, CLOCK)
    assert paged() == (before, False)


def test_a_damaged_table_is_noticed_whatever_was_asked_for(paged, opd, folders):
    """Its own is measured again; one of a reference, which the page may show, ends the command."""
    paged()
    store, hill = Store(default_uri()), "lake/hill/recipe=external.mine/seed=0/part-0.parquet"
    whole = store.read(hill)
    store.write(hill, whole[:-20] + b"x" + whole[-19:])
    paged()
    assert store.read(hill) == whole
    reference = "lake/update_norm/recipe=tiny.opd/seed=0/part-0.parquet"
    store.write(reference, b"PAR1")
    asked = ("--base", folders[0], "--snapshot", f"100={folders[100]}", "--name", "mine", "--workers", 0)
    code, _, err = opd("measure", *asked)
    assert code == 2 and err.count("\n") == 1 and f"{reference} cannot be read" in err


def test_a_page_of_what_was_never_imported_is_refused(refused):
    assert "holds no import 'external.other'; `opd measure --name` makes one" in refused("report", "external.other")


def test_a_second_call_measures_nothing_and_a_new_snapshot_joins(measure, monkeypatch):
    measure(steps=(100,))
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.runs.external.imports.measure_tasks", lambda *_, **__: pytest.fail("measured again"))
        code, told, err = measure(steps=(100,))
        assert (code, err) == (0, "") and "steps 100 were measured already" in told
    assert "steps 100, 200 measured" in measure(steps=(200,))[1]
    assert set(lake.scan("locking").collect()["step_other"]) == {200}


@pytest.fixture
def fewer(monkeypatch):
    """Few pairs are not all of four snapshots already."""
    monkeypatch.setattr(pairs, "WHOLE", 3)
    monkeypatch.setattr(steps, "MOST", 2)
    pairs._choose_pairs.cache_clear()
    yield
    pairs._choose_pairs.cache_clear()


@pytest.mark.usefixtures("fewer")
def test_all_pairs_come_from_what_was_kept_when_the_checkpoints_are_gone(measure, folders, tmp_path):
    taken = tuple(range(100, 1000, 100))
    folders |= {step: save(tmp_path / f"at-{step}", weights(step)) for step in taken[2:]}
    assert measure(steps=taken)[::2] == (0, "")
    few = lake.scan("locking").collect()
    assert pairs_of(few) < set(combinations(taken, 2))
    others = {table: lake.scan(table).collect() for table in TABLES if table != "locking"}
    for step in taken:
        shutil.rmtree(folders[step])
    code, told, err = measure("--locking-pairs", "all", steps=taken)
    assert (code, err) == (0, "") and "800, 900 measured" in told
    assert told.count("what was measured of it is used") == 9
    every = lake.scan("locking").collect()
    assert pairs_of(every) == set(combinations(taken, 2))
    same = every.join(few.select(KEYS), on=KEYS, how="semi")
    assert same.drop("similarity").equals(few.drop("similarity"))
    assert same["similarity"].to_list() == pytest.approx(few["similarity"].to_list(), rel=1e-13)
    assert all(lake.scan(table).collect().equals(rows) for table, rows in others.items())
    assert "were measured already" in measure("--locking-pairs", "all", steps=taken)[1]
    assert "900 measured\n" in measure(steps=taken)[1] and lake.scan("locking").collect().equals(few)


@pytest.mark.usefixtures("fewer")
def test_a_new_snapshot_makes_pairs_with_itself_and_leaves_the_others(measure, folders, tmp_path):
    taken = (100, 200, 300, 400, 500)
    folders |= {step: save(tmp_path / f"at-{step}", weights(step)) for step in taken[2:]}
    assert measure("--diagnostics", "locking", steps=taken[:4])[0] == 0
    before = lake.scan("locking").collect()
    for step in taken[:4]:
        shutil.rmtree(folders[step])
    assert measure("--diagnostics", "locking", steps=taken[4:])[0] == 0
    after = lake.scan("locking").collect()
    assert {(step, 500) for step in taken[:4]} <= pairs_of(after)
    kept = after.join(before.select(KEYS), on=KEYS, how="semi")
    assert kept.equals(before.join(after.select(KEYS), on=KEYS, how="semi")) and len(kept) > 0
    assert all(other == 400 for _, other in pairs_of(before) - pairs_of(after)), "the final step that was"


def test_a_checkpoint_that_is_gone_and_not_recorded_under_its_address_is_refused(measure, folders, tmp_path):
    some = ("--diagnostics", "locking,hill")
    measure(*some, steps=(100,))
    shutil.move(folders[100], tmp_path / "moved")
    code, told, err = measure(*some)
    assert (code, err) == (0, "") and f"note: snapshot 100: {folders[100]} does not exist" in told
    code, _, err = measure("--k", "2", *some)
    assert code == 2 and "recorded snapshot 100 is gone" in err and "give it as --snapshot 100=REF" in err
    Path(folders[100]).mkdir()
    code, _, err = measure(*some)
    assert code == 2 and "snapshot 100: " in err and "no other weights" in err, "it is there, and not as it was"
    folders[100] = tmp_path / "elsewhere"
    code, _, err = measure(*some)
    assert code == 2 and f"snapshot 100: {tmp_path}/elsewhere does not exist" in err


def test_pairs_that_are_no_choice_are_refused(refused, folders):
    given = ("--base", folders[0], "--snapshot", f"100={folders[100]}")
    assert "--locking-pairs 'some' is neither all nor few" in refused("measure", *given, "--locking-pairs", "some")


def test_named_steps_that_are_no_snapshots_are_refused(refused, folders):
    given = ("--base", folders[0], "--snapshot", f"100={folders[100]}")
    for command in ("measure", "plan"):
        for option in ("--nulls-at", "--spectra-at"):
            told = refused(command, *given, option, "100,300")
            assert f"{option} names step 300, which is no snapshot; there are: 100" in told


def pairs_of(rows):
    return set(rows.select("step", "step_other").iter_rows())


def test_ranks_are_sorted_and_taken_once(measure):
    assert measure("--k", "8,2,8")[0] == 0
    assert lake.scan("rotation").collect()["k"].unique().sort().to_list() == [2, 8]


def test_a_weight_that_is_not_finite_is_named_and_the_others_are_measured(measure, folders, tmp_path):
    bad = weights(300)
    bad[NORM][4] = torch.nan
    folders[300] = save(tmp_path / "bad", bad)
    code, told, err = measure(steps=(100, 300))
    assert code == 3
    assert err == f"error: {NORM.removesuffix('.weight')}: step 300: 1 non-finite weights\n"
    assert "steps 100, 300 measured" in told
    assert set(lake.scan("rotation").filter(matrix=Q.removesuffix(".weight")).collect()["step"]) == {100, 300}
    again = measure(steps=(100, 300))
    assert (again[0], again[2]) == (3, err) and "measured already" in again[1]


def test_a_matrix_that_cannot_be_computed_ends_nothing(opd, unpublished, tmp_path, monkeypatch):
    """Whatever the engine raises for one matrix is its reason and a named problem; the other matrix has its rows."""
    from opd_ops.geometry import subspace_rows

    dense = subspace_rows.rows_from_factors

    def failing(base, *rest):
        if len(base.s) == 7:
            raise torch.linalg.LinAlgError("linalg.eigh: did not converge")
        return dense(base, *rest)

    monkeypatch.setattr(subspace_rows, "rows_from_factors", failing)
    other = Q.replace("q_proj", "k_proj")
    before, after = (
        save(tmp_path / f"odd-{step}", {**weights(step), other: weights(step)[Q][:7].clone()}) for step in (0, 5)
    )
    code, _, err = opd("measure", "--base", before, "--snapshot", f"5={after}", "--name", "odd", "--workers", 0)
    why = "not computable (LinAlgError: linalg.eigh: did not converge)"
    assert (code, err) == (3, f"error: {other.removesuffix('.weight')}: step 5: {why}\n")
    rows = lake.scan("rotation").collect()
    assert set(rows.filter(matrix=other.removesuffix(".weight"))["reason"]) == {why}
    assert rows.filter(matrix=Q.removesuffix(".weight"))["max_deg"].null_count() == 0


@pytest.mark.parametrize("kind", ["axis-aligned", "proportional", "1e-39", "2e-21", "2e20"])
def test_odd_matrices_are_measured_beside_a_healthy_one(kind, opd, unpublished, tmp_path):
    """Finite weights above the size of dense factors, each of which once ended the command with a traceback."""
    generator = torch.Generator().manual_seed(0)
    diagonal = torch.zeros(520, 560)
    diagonal.diagonal().copy_(torch.arange(1, 521) ** -0.7)
    if kind == "axis-aligned":
        after = diagonal.clone()
        after[3, 3] *= 1.01
        after[100, 5] += 1e-3
        odd = (diagonal, after)
    elif kind == "proportional":
        odd = (diagonal, 1.5 * diagonal)
    else:
        draw = torch.randn(520, 560, generator=generator)
        odd = (float(kind) * draw, float(kind) * (draw + 1e-3 * draw.roll(1, 0)))
    name = Q.replace("q_proj", "up_proj")
    folders = [save(tmp_path / f"w{i}", {**weights(10 * i), name: w}) for i, w in enumerate(odd)]
    given = ("--base", folders[0], "--snapshot", f"10={folders[1]}", "--name", "odd", "--workers", 0)
    assert opd("measure", *given, "--diagnostics", "rotation,update_norm,singular_shift")[::2] == (0, "")
    for table in ("rotation", "update_norm", "singular_shift"):
        rows = lake.scan(table).collect()
        assert rows["matrix"].n_unique() == 2 and rows["reason"].null_count() == rows.height
    rotation = lake.scan("rotation").filter(matrix=name.removesuffix(".weight"), side="output", view="master").collect()
    error = rotation["error_deg"][0]
    assert error < 0.2 and rotation["max_deg"][0] == pytest.approx(RIGHT[kind], abs=max(error, 1e-3))


# Degrees at k = 16 on the output side, from float64 LAPACK of the weights rescaled by powers of two.
RIGHT = {"axis-aligned": 0.2052, "proportional": 0.0, "1e-39": 0.54935, "2e-21": 0.54929, "2e20": 0.54928}


def test_workers_are_processes_where_the_work_is_short_a_ray_session_where_not_and_none_is_none(measure, monkeypatch):
    """All three give the same rows (see tests/pipelines/runs); here, what is asked for."""
    asked = []

    def starts(kind):
        @contextmanager
        def session(count, *preload):
            asked.append((kind, count))
            yield

        return session

    monkeypatch.setitem(sys.modules, "ray", None)  # which other tests of this process may have joined
    monkeypatch.setattr("pipelines.runs.cluster.attach.cluster", starts("ray"))
    monkeypatch.setattr("pipelines.runs.cluster.processes.process_pool", starts("processes"))
    monkeypatch.setattr(
        "pipelines.runs.external.imports.measure_import", lambda plan, serial, progress: asked.append(serial) or []
    )
    measure("--workers", 3)
    assert asked == [("processes", 2), False], "of two matrices"
    monkeypatch.setattr("pipelines.runs.cluster.processes.SHORT", 0.0)
    measure("--workers", 3)
    monkeypatch.setattr("pipelines.runs.cluster.processes.SHORT", 300.0)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    measure("--workers", 1)
    assert asked[2:] == [("ray", 3), False, ("ray", 1), False]
    measure()
    assert asked[6:] == [True]


def test_processes_give_the_rows_of_this_one(measure, here, monkeypatch):
    monkeypatch.setattr("pipelines.runs.cluster.processes.suit_work", lambda seconds: True)
    code, told, err = measure("--workers", 2, "--out", "two")
    assert (code, err) == (0, "") and "steps 100, 200 measured in 2 processes\n" in told
    assert measure("--out", "one")[::2] == (0, "")
    of = lambda folder: {
        path.relative_to(here / folder): path.read_bytes()
        for part in ("lake", "runs")
        for path in (here / folder / part).rglob("*.*")
        if path.is_file() and "timing" not in path.parts and not path.name.startswith("import")
    }
    assert of("two") == of("one") and len(of("one")) > len(TABLES)


def test_roles_and_tables_are_chosen(measure, here):
    code, _, err = measure("--roles", "q", "--diagnostics", "hill, update_support")
    assert (code, err) == (0, "")
    assert set(lake.scan("update_support").collect()["role"]) == {"q"}
    assert sorted(path.name for path in (here / ".opd" / "store" / "lake").iterdir()) == [
        "hill",
        "timing",
        "update_support",
    ]
    assert "were measured already" in measure("--roles", "q", "--diagnostics", "hill")[1]


def test_ranks_past_a_matrix_are_null_with_a_reason(measure):
    assert measure("--k", "4,99")[0] == 0
    (reason,) = set(lake.scan("rotation").filter(k=99).collect()["reason"])
    assert reason == "k=99 exceeds min(m, n)=20"


def test_a_trajectory_is_its_own_base(opd, prefix, folders):
    (prefix / "checkpoint-300").mkdir()
    code, told, err = opd("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)
    assert (code, err) == (0, "")
    first, *_ = told.splitlines()
    assert first.startswith("note: snapshot 300: ") and first.endswith("; left out")
    assert "external.mine: steps 100, 200 measured" in told
    code, told, err = opd("measure", "--trajectory", prefix, "--base", folders[0], "--name", "other", "--workers", 0)
    assert (code, err) == (0, "") and f"note: step 0 under {prefix} is left out, since a base is given" in told
    found = lake.scan("rotation").collect()
    mine, other = (found.filter(recipe=f"external.{name}").drop("recipe") for name in ("mine", "other"))
    assert mine.equals(other)


def test_progress_is_drawn_by_cost(measure, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "pipelines.progress.Board.update", lambda board, item, share, words: drawn.append((share, words))
    )
    measure()
    assert [words for _, words in drawn] == ["2 matrices"] * 2
    assert 0.5 < drawn[0][0] < drawn[1][0] == 1.0, "the projection is most of it, and comes first"


@pytest.mark.parametrize("pinned", [True, False], ids=["by this version", "by an earlier one, without SHA-256"])
def test_a_table_that_is_not_its_records_is_told_by_verify_and_repaired_by_the_same_command(pinned, opd, measure, here):
    """As two calls at once could leave it: one table of step 100 alone, the others and the record of both steps."""
    store = Store(default_uri())
    hill = "lake/hill/recipe=external.mine/seed=0/part-0.parquet"
    measure(steps=(100,))
    early = store.read(hill)
    measure(steps=(200,))
    if not pinned:
        number, data = records.record_generations(store, "external.mine").read()
        record = json.loads(data)
        for made in record["tables"].values():
            del made["sha256"]
        store.write(records.record_generations(store, "external.mine").key(number), json.dumps(record).encode())
    assert opd("verify")[0] == 0
    assert "were measured already" in measure(steps=(200,))[1]
    whole = store.read(hill)
    store.write(hill, early)
    code, out, err = opd("verify", "--run", "external.mine/0")
    why = "is not the file that its record names" if pinned else "holds steps 100, and its record names 100, 200"
    assert (code, err) == (5, "")
    assert out.splitlines()[1] == (
        f"  {hill} {why}: measure the run again (`opd study run`, `opd measure`), or bring the table back from a copy"
    )
    assert "steps 100, 200 measured" in measure(steps=(200,))[1]
    assert store.read(hill) == whole and opd("verify")[0] == 0


def test_it_ends_with_a_row_a_role_that_fits(measure, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = measure()
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    lines = [line.split() for line in out.splitlines()]
    (heading,) = [line for line in out.splitlines() if line.startswith("role ")]
    assert heading.split() == [
        "role",
        "matrices",
        "unchanged,",
        "%",
        "rotation,",
        "deg",
        "NSS",
        "stable",
        "rank",
        "norm",
    ]
    (q,) = [line for line in lines if line[:1] == ["q"]]
    ends = lake.scan("rotation").filter(step=200, view="master", side="input", matrix=Q.removesuffix(".weight"))
    assert float(q[3]) == pytest.approx(ends.collect()["mean_deg"].item(), rel=5e-3)
    norm = lake.scan("update_norm").filter(step=200, view="master", role="q").collect()
    assert float(q[-1]) == pytest.approx(norm["relative_norm"].item(), rel=5e-3)
    (bounds,) = [line for line in lines if line[:2] == ["bounds", "<="]]
    assert float(bounds[2]) >= ends.collect()["error_deg"].item() * 0.9


def test_it_ends_without_columns_that_were_not_asked_for(measure):
    out = measure("--diagnostics", "hill")[1]
    assert "role " not in out and "page: " in out
    assert "stable rank" not in measure("--diagnostics", "rotation", "--k", "4", "--name", "other")[1]
