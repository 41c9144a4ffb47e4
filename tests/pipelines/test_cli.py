"""The command line in this process: what it prints, what it refuses, and a measurement from folders to tables."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from pipelines import cli, lake
from pipelines.runs import comparing
from pipelines.runs.measuring import TABLES
from pipelines.store.objects import Store, default_uri
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_study

Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
TINY = find_study("tiny")


def weights(step):
    generator = torch.Generator().manual_seed(1)
    start, drift = (torch.randn(24, 20, generator=generator) for _ in range(2))
    return {Q: start + 0.01 * step * drift, NORM: torch.ones(20) + 0.01 * step}


def save(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory without settings in the environment; the store is its .opd/store."""
    for name in ("OPD_STORE", "DAGSTER_HOME", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def folders(tmp_path):
    """A base and its checkpoints of steps 100 and 200, in the Hugging Face layout."""
    return {step: save(tmp_path / f"at-{step}", weights(step)) for step in (0, 100, 200)}


@pytest.fixture
def opd(here, capsys):
    """opd(*arguments): exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(opd, here):
    """refused(*arguments): the one line on stderr of a command that ends with 2 and has written nothing."""

    def run(*arguments):
        before = sorted(here.rglob("*"))
        code, out, err = opd(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        assert sorted(here.rglob("*")) == before
        return err

    return run


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["study", "measure", "tables", "report", "weights", "OPD_STORE", "Exit codes", "130 interrupted"]),
        ("study", ["list", "show", "run", "recipes x seeds"]),
        ("study list", ["usage: opd study list"]),
        ("study show", ["NAME"]),
        ("study run", ["--suite", "--recipe", "--seed", "default: core", "Dagster"]),
        (
            "measure",
            ["--base", "--snapshot STEP=REF", "--k", "--name", "--out", "--workers", "Example:", "safetensors"],
        ),
        ("tables", ["TABLE", "--out"]),
        ("report", ["STUDY", "verdicts"]),
        ("weights", ["SmolLM2", "93 MB"]),
    ],
)
def test_help_says_what_a_command_takes(command, words, opd, here):
    code, out, err = opd(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: opd")
    for word in words:
        assert word in " ".join(out.split())
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["COMMAND", "opd --help"]),
        ("stduy", ["'stduy'", "study", "measure", "opd --help"]),
        ("study", ["COMMAND", "opd study --help"]),
        ("study show", ["NAME", "opd study show --help"]),
        ("study show tyni", ["'tyni'", "known: tiny, smollm"]),
        ("study run tyni", ["'tyni'", "known: tiny, smollm"]),
        ("study run tiny --suite extra", ["'extra'", "it has: core"]),
        ("study run tiny --recipe tiny.odp", ["'tiny.odp'", "it has: tiny.sft, tiny.opd, tiny.rlvr, tiny.sft-matched"]),
        ("study run tiny --recipe tiny.opd --recipe smollm.opd", ["'smollm.opd'", "it has: tiny.sft"]),
        ("study run tiny --seed 3", ["no seed 3", "it has: 0, 1, 2"]),
        ("study run tiny --seed one", ["--seed", "'one'", "opd study run --help"]),
        ("tables rotations", ["'rotations'", "known: training, timing"]),
        ("tables --out zzz://bucket", ["zzz"]),
        ("report tyni", ["'tyni'", "known: tiny, smollm"]),
        ("report tiny", [".opd/store", "no measured run of study tiny", "opd study run tiny"]),
        ("measure", ["--base", "opd measure --help"]),
        ("measure --base {0}", ["at least one --snapshot STEP=FOLDER"]),
        ("measure --base {0} --snapshot {1}", ["--snapshot", "is not STEP=REF", "100=./step-100"]),
        ("measure --base {0} --snapshot one={1}", ["'one=", "is not STEP=REF"]),
        ("measure --base {0} --snapshot -1={1}", ["--snapshot"]),
        ("measure --base {0} --snapshot 100=", ["'100='", "is not STEP=REF"]),
        ("measure --base {0} --snapshot 0={1}", ["step 0", "is the base itself"]),
        ("measure --base {0} --snapshot 1={1} --snapshot 1={2}", ["step 1 is given 2 times", "one folder"]),
        ("measure --base {0} --snapshot 1={1} --k 0", ["--k '0'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --k 16;64", ["--k '16;64'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --k 16,", ["--k '16,'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --workers 0", ["--workers 0", "positive"]),
        ("measure --base {0} --snapshot 1={1} --workers two", ["--workers", "'two'", "opd measure --help"]),
        ("measure --base {0} --snapshot 1={1} --name My_Run", ["'My_Run'", "a-z"]),
        ("measure --base {0}-gone --snapshot 1={1}", ["base: folder", "-gone", "does not exist", "name a local"]),
        ("measure --base {0} --snapshot 7=nowhere", ["snapshot 7: folder nowhere", "does not exist"]),
        ("measure --base {0} --snapshot 1={1}/config.json", ["config.json", "is a file"]),
        ("measure --base {0} --snapshot 1={1} --out {1}/config.json/store", ["config.json/store", "cannot be written"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line_with_the_value_and_a_remedy(command, words, refused, folders):
    err = refused(*(part.format(folders[0], folders[100], folders[200]) for part in command.split()))
    for word in words:
        assert word in err


def test_stores_that_cannot_be_written_are_refused(refused, here, monkeypatch):
    (here / "file").write_text("kept")
    monkeypatch.setenv("OPD_STORE", f"{here}/file/store")
    for command in ("report tiny", "weights"):
        if command == "report tiny":
            monkeypatch.setattr(cli, "_progress", lambda *_: (1, 12))
        err = refused(*command.split())
        assert f"{here}/file/store cannot be written" in err and "set OPD_STORE" in err


def measure(opd, folders, *arguments, steps=(100, 200)):
    given = [part for step in steps for part in ("--snapshot", f"{step}={folders[step]}")]
    return opd("measure", "--base", folders[0], *given, "--name", "mine", "--workers", 1, *arguments)


def test_folders_are_measured_into_tables_that_polars_reads_alone(opd, folders, tmp_path):
    out = tmp_path / "a store"
    code, told, err = measure(opd, folders, "--out", out)
    assert (code, err) == (0, "")
    assert "external.mine: steps 100, 200 measured" in told and str(out / "lake") in told
    ours = lake.scan("rotation", str(out)).filter(recipe="external.mine").collect()
    assert set(ours["step"]) == {100, 200}
    assert ours.filter(step=200)["mean_deg"].drop_nulls().mean() > ours.filter(step=100)["mean_deg"].mean() > 0
    plain = pl.scan_parquet(f"{out}/lake/rotation/**/*.parquet").collect()
    assert plain.select(ours.columns).equals(ours)
    for table in TABLES:
        assert lake.scan(table, str(out)).collect().height > 0, table


def test_a_second_call_measures_nothing_and_a_new_snapshot_joins(opd, folders, monkeypatch):
    measure(opd, folders, steps=(100,))
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.runs.imports.measure", lambda *_, **__: pytest.fail("measured again"))
        code, told, err = measure(opd, folders, steps=(100,))
        assert (code, err) == (0, "") and "steps 100 were measured already" in told
    assert "steps 100, 200 measured" in measure(opd, folders, steps=(200,))[1]
    assert set(lake.scan("locking").collect()["step_other"]) == {200}


def test_ranks_are_sorted_and_taken_once(opd, folders):
    assert measure(opd, folders, "--k", "8,2,8")[0] == 0
    assert lake.scan("rotation").collect()["k"].unique().sort().to_list() == [2, 8]


def test_a_weight_that_is_not_finite_is_named_and_the_others_are_measured(opd, folders, tmp_path):
    bad = weights(300)
    bad[NORM][4] = torch.nan
    folders[300] = save(tmp_path / "bad", bad)
    code, told, err = measure(opd, folders, steps=(100, 300))
    assert code == 3
    assert err.startswith(f"error: {NORM}: ") and err.count("\n") == 1
    assert "steps 100, 300 measured" in told
    assert set(lake.scan("rotation").filter(matrix=Q.removesuffix(".weight")).collect()["step"]) == {100, 300}
    again = measure(opd, folders, steps=(100, 300))
    assert (again[0], again[2]) == (3, err) and "measured already" in again[1]


def test_several_workers_are_a_ray_session_and_one_is_none(opd, folders, here, monkeypatch):
    """Ray gives the rows of one process (see tests/pipelines/runs); here, that it is asked for."""
    asked = []

    @contextmanager
    def session(cpus):
        asked.append(cpus)
        yield

    monkeypatch.setattr("pipelines.runs.cluster.cluster", session)
    monkeypatch.setattr(
        "pipelines.runs.imports.measure_import", lambda plan, serial, progress: asked.append(serial) or []
    )
    measure(opd, folders, "--workers", 3)
    assert asked == [3, False]
    measure(opd, folders)
    assert asked == [3, False, True]


def test_tables_are_listed_with_their_rows_and_explained_by_column(opd, folders):
    code, empty, err = opd("tables")
    assert (code, err) == (0, "")
    listed = {line.split()[0]: line.split()[1:3] for line in empty.splitlines()[1:] if line.strip()}
    assert all(listed[name] == ["0", "0"] for name in lake.TABLES)
    measure(opd, folders)
    rows = lake.scan("rotation").collect().height
    (line,) = [line for line in opd("tables")[1].splitlines() if line.startswith("rotation")]
    assert line.split()[1:3] == [f"{rows:,}", "1"]
    code, told, err = opd("tables", "rotation")
    assert (code, err) == (0, "")
    for column in lake.TABLES["rotation"].columns:
        assert any(line.split()[0] == column.name and column.meaning in line for line in told.splitlines())


def test_another_store_is_listed_by_its_address(opd, folders, tmp_path, here):
    measure(opd, folders, "--out", tmp_path / "elsewhere")
    line = lambda out: next(line for line in out.splitlines() if line.startswith("hill"))
    assert line(opd("tables", "--out", tmp_path / "elsewhere")[1]).split()[1] != "0"
    assert line(opd("tables")[1]).split()[1] == "0"


def finish(recipe, seed):
    """The run is complete, with no weights."""
    trajectory = Trajectory(Store(default_uri()), recipe.name, seed)
    identity, fingerprint = recipe.identity(), recipe.fingerprint()
    trajectory.register({"identity": identity, "fingerprint": fingerprint, "inputs": {}, "provenance": {}})
    trajectory.finish({"step": 0, "digest": "", "snapshots": [], "evaluation": []})


def test_studies_are_listed_with_what_the_store_holds(opd, here):
    code, told, err = opd("study", "list")
    assert (code, err) == (0, "")
    for name in ("tiny", "smollm"):
        study = find_study(name)
        assert study.title in told and study.minutes in told
    assert "0 of 12 runs measured" in told and "0 of 3 runs measured" in told
    assert list(here.iterdir()) == []


def test_a_study_is_shown_run_by_run(opd):
    opd_arm = TINY.every_arm()[1]
    finish(opd_arm, 2)
    code, told, err = opd("study", "show", "tiny")
    assert (code, err) == (0, "")
    lines = [line.split() for line in told.splitlines() if line.startswith("tiny.")]
    assert [line[:2] for line in lines] == [["tiny.base", "0"], ["tiny.teacher", "0"]] + [
        [recipe.name, str(seed)] for recipe in TINY.every_arm() for seed in TINY.seeds
    ]
    assert {(line[0], line[1]) for line in lines if line[-1] != "absent"} == {("tiny.opd", "2")}
    assert ["tiny.opd", "2", "opd", "tiny.sft", "3e-05", "100", "trained"] in lines
    assert "opd study run tiny" in told
    assert "models/smollm2-135m-instruct" in opd("study", "show", "smollm")[1]


def test_a_stored_run_of_another_recipe_is_one_line_wherever_it_is_met(opd, refused, monkeypatch):
    finish(TINY.every_arm()[1], 0)
    monkeypatch.setattr("opd_ops.recipe.Recipe.fingerprint", lambda recipe: "another")
    for command in ("study show tiny", "report tiny"):
        assert "runs/tiny.opd/seed-0 holds a run of another recipe" in refused(*command.split())


def test_a_study_runs_in_the_process_that_launches_it(opd, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "execv", lambda path, command: seen.append((path, command)))
    opd("study", "run", "tiny", "--recipe", "tiny.opd", "--recipe", "tiny.sft", "--seed", "2", "--seed", "0")
    ((path, command),) = seen
    assert path == command[0] == sys.executable
    assert command[1:5] == ["-m", "assets.launch", "tiny", "--suite"]
    assert " ".join(command[5:]) == "core --recipe tiny.opd --recipe tiny.sft --seed 2 --seed 0"


def test_a_report_is_written_again_from_what_is_measured(opd, here, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "_progress", lambda store, study: (3, 12))
    monkeypatch.setattr(comparing, "decide", lambda store, study: calls.append(("decide", study.name)))
    monkeypatch.setattr(
        comparing, "publish", lambda store, study: calls.append(("publish", study.name)) or "reports/tiny/index.html"
    )
    code, told, err = opd("report", "tiny")
    assert (code, err) == (0, "")
    assert calls == [("decide", "tiny"), ("publish", "tiny")]
    assert told == f"3 of 12 runs; report: {here}/.opd/store/reports/tiny/index.html\n"


def test_an_interrupt_ends_with_130_and_one_line(opd, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "list_studies", interrupted)
    code, out, err = opd("study", "list")
    assert (code, out) == (130, "")
    assert err.count("\n") == 1 and "the same command continues" in err


def test_the_installed_command_is_this_one(here):
    opd = Path(sys.executable).with_name("opd")
    done = subprocess.run([opd, "report", "tyni"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown study 'tyni'; known: tiny, smollm\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(unbuffered, here):
    command = [sys.executable, "-m", "pipelines.cli", "tables"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_store_without_credentials_is_one_line(opd, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPD_STORE", "s3://bucket/prefix-without-credentials")
    code, out, err = opd("tables")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "s3://bucket/prefix-without-credentials" in err and "check OPD_STORE" in err


def test_an_error_of_the_program_itself_is_not_blamed_on_the_store(opd, monkeypatch):
    monkeypatch.setattr(cli, "default_uri", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opd("tables")


def test_a_run_of_a_changed_recipe_hides_no_other_study(opd, monkeypatch):
    def missing(store, study):
        if study.name == "tiny":
            raise ValueError("runs/tiny.opd/seed-0 holds a run of another recipe")
        return ["smollm.opd seed 0"]

    monkeypatch.setattr(comparing, "missing", missing)
    code, out, err = opd("study", "list")
    assert (code, err) == (0, "")
    assert "holds a run of another recipe" in out and "smollm" in out and "2 of 3 runs measured" in out
