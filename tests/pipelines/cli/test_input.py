"""What every command says of itself, and what it refuses."""

import re
import shutil

import pytest

from pipelines.cli import study
from pipelines.runs.external import watchlist
from pipelines.store.objects import Store, default_uri


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "",
            ["study", "measure", "plan", "tables", "report", "weights", "OPD_STORE", "Exit codes", "130 inter"],
        ),
        ("study", ["list", "show", "run", "recipes x seeds"]),
        ("study list", ["usage: opd study list"]),
        ("study show", ["NAME"]),
        ("study run", ["--suite", "--recipe", "--seed", "default: core", "Dagster"]),
        (
            "measure",
            [
                "--base",
                "--snapshot STEP=REF",
                "--trajectory PREFIX",
                "--k",
                "--roles",
                "--diagnostics",
                "--name",
                "--out",
                "--workers",
                "0 works in this process",
                "--watch",
                "--interval",
                "--until",
                "Example:",
                "safetensors",
            ],
        ),
        ("plan", ["--base", "--trajectory PREFIX", "nothing is written", "Example:"]),
        ("tables", ["TABLE", "--out"]),
        ("report", ["NAME", "verdicts"]),
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
        ("stduy", ["'stduy'", "study", "measure", "opd --help"]),
        ("study show", ["NAME", "opd study show --help"]),
        ("study show tyni", ["'tyni'", "known: tiny, smollm", "did you mean 'tiny'?"]),
        ("study run tyni", ["'tyni'", "known: tiny, smollm"]),
        ("study run tiny --suite extra", ["'extra'", "it has: core"]),
        ("study run tiny --recipe tiny.odp", ["'tiny.odp'", "it has: tiny.sft, tiny.opd, tiny.rlvr, tiny.sft-matched"]),
        ("study run tiny --recipe odp", ["'odp'", "did you mean 'tiny.opd'?"]),
        ("study verdicts tiny --status fail", ["'fail'", "known: fails, undecided, holds", "did you mean 'fails'?"]),
        ("study verdicts tiny --suite extra", ["'extra'", "it has: core"]),
        ("report tiny --save nowhere/page.html", ["--save nowhere/page.html", "does not exist; make it first"]),
        ("study run tiny --recipe tiny.opd --recipe smollm.opd", ["'smollm.opd'", "it has: tiny.sft"]),
        ("study run tiny --seed 3", ["no seed 3", "it has: 0, 1, 2"]),
        ("study run tiny --seed one", ["--seed", "'one'", "opd study run --help"]),
        ("tables rotations", ["'rotations'", "known: training, positions, sync, timing"]),
        ("tables --out zzz://bucket", ["zzz"]),
        ("report tyni", ["'tyni'", "known: tiny, smollm"]),
        ("report tiny", [".opd/store", "no measured run of study tiny", "opd study run tiny"]),
        ("measure", ["no base", "--base REF", "--trajectory PREFIX"]),
        ("plan", ["no base", "--base REF"]),
        ("measure --base {0}", ["no snapshots", "at least one --snapshot STEP=REF"]),
        ("plan --base {0}", ["no snapshots", "at least one --snapshot STEP=REF"]),
        ("measure --base {0} --snapshot {1}", ["--snapshot", "is not STEP=REF", "100=./step-100"]),
        ("measure --base {0} --snapshot one={1}", ["'one=", "is not STEP=REF"]),
        ("measure --base {0} --snapshot \u0661={1}", ["is not STEP=REF"]),
        ("measure --base {0} --snapshot -1={1}", ["--snapshot"]),
        ("measure --base {0} --snapshot 100=", ["'100='", "is not STEP=REF"]),
        ("measure --base {0} --snapshot 0={1}", ["step 0", "is the base itself"]),
        ("measure --base {0} --snapshot 1={1} --snapshot 1={2}", ["step 1 is given 2 times", "one checkpoint"]),
        ("measure --base {0} --snapshot 1={1} --trajectory {2}", ["--trajectory", "not allowed with", "--snapshot"]),
        ("measure --base {0} --snapshot 1={1} --k 0", ["--k '0'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --k 16;64", ["--k '16;64'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --k 16,", ["--k '16,'", "such as 16,64"]),
        ("measure --base {0} --snapshot 1={1} --roles q,K", ["--roles names 'K'", "known: q, k, v, o"]),
        ("measure --base {0} --snapshot 1={1} --roles up", ["nothing to measure of roles up", "has roles q, norm"]),
        ("measure --base {0} --snapshot 1={1} --diagnostics rotations", ["'rotations'", "known: update_support, rot"]),
        ("measure --base {0} --snapshot 1={1} --workers -1", ["--workers -1", "negative"]),
        ("measure --base {0} --snapshot 1={1} --workers two", ["--workers", "'two'", "opd measure --help"]),
        ("measure --base {0} --snapshot 1={1} --name My_Run", ["'My_Run'", "a-z"]),
        ("measure --base {0}-gone --snapshot 1={1}", ["base: ", "-gone does not exist", "name a Hugging Face folder"]),
        ("measure --base {0} --snapshot 7=nowhere", ["snapshot 7: nowhere does not exist"]),
        ("measure --base {0} --snapshot 1={1}/config.json", ["config.json", "is a file"]),
        ("measure --base {0} --snapshot 1={1} --out {1}/config.json/store", ["config.json/store", "cannot be written"]),
        ("measure --trajectory {0}", ["holds no checkpoint with its step in its name", "checkpoint-100"]),
        ("measure --trajectory=", ["--trajectory", "the address '' is empty", "name a folder or a URI"]),
        ("measure --trajectory= --watch", ["--trajectory", "the address '' is empty"]),
        ("measure --base= --snapshot 1={1}", ["--base", "the address '' is empty"]),
        ("measure --base {0} --snapshot 1=", ["--snapshot '1='", "its address is empty", "100=./step-100"]),
        ("plan --trajectory=", ["--trajectory", "the address '' is empty", "opd plan --help"]),
        ("monitor --against tiny.opd --trajectory=", ["--trajectory", "the address '' is empty"]),
        ("monitor --against tiny.opd --trajectory {0} --base=", ["--base", "the address '' is empty"]),
        ("watch mine --trajectory=", ["--trajectory", "the address '' is empty"]),
        ("watch mine --trajectory {0} --base=", ["--base", "the address '' is empty"]),
        ("measure --trajectory {0}-gone", ["-gone is not a folder", "that holds the checkpoints"]),
        ("measure --base {0} --snapshot 1={1} --until 5", ["--until goes with --watch"]),
        ("measure --base {0} --snapshot 1={1} --interval 5", ["--interval goes with --watch"]),
        ("measure --base {0} --snapshot 1={1} --watch", ["--watch", "give --trajectory PREFIX"]),
        ("measure --base {0} --trajectory {1} --watch --interval 0", ["--interval 0", "above 0"]),
        ("measure --base {0} --trajectory {1} --watch --until 0", ["--until 0", "from 1 up"]),
        ("measure --base {0} --trajectory {1} --watch --diagnostics nulls", ["nulls", "final step", "without --watch"]),
        ("measure --base {0} --trajectory {1}-gone --watch --workers 0", ["-gone is not a folder"]),
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
            monkeypatch.setattr(study, "count_progress", lambda *_: (1, 12))
        err = refused(*command.split())
        assert f"{here}/file/store cannot be written" in err and "set OPD_STORE" in err


def test_a_matrix_whose_workers_keep_dying_is_one_line_and_a_failed_run(opd, monkeypatch):
    from pipelines.runs.cluster.worker_failures import WorkerFailed

    def dies(given):
        raise WorkerFailed("lm_head was lost 4 times (killed by Ray's memory monitor); use fewer workers")

    monkeypatch.setattr(study, "list_studies", dies)
    code, said, told = opd("study", "list")
    assert (code, said) == (1, "")
    assert told == "error: lm_head was lost 4 times (killed by Ray's memory monitor); use fewer workers\n"


@pytest.mark.parametrize("where", ["working directory", "home", "OPD_STORE", "--out"])
def test_colons_in_an_address_are_characters_wherever_it_enters(where, opd, here, prefix, monkeypatch, unpublished):
    """Two stores of such names are two, and nothing lies beside them."""
    names, root = ("exp::a", "exp::b"), here.resolve()
    for name in names:
        (here / name / "run").mkdir(parents=True)
        for step in (0, 100):
            shutil.copytree(prefix / f"checkpoint-{step}", here / name / "run" / f"checkpoint-{step}")
        more = []
        if where == "working directory":
            monkeypatch.chdir(root / name)
        elif where == "home":
            monkeypatch.setenv("HOME", str(root / name))
            more = ["--out", "~/.opd/store"]
        elif where == "OPD_STORE":
            monkeypatch.setenv("OPD_STORE", f"file://{root}/{name}/.opd/store")
        else:
            more = ["--out", f"{name}/.opd/store"]
        run = root / name / "run"
        code, _, err = opd("measure", "--trajectory", run, "--name", name[-1], "--workers", 0, *more)
        assert (code, err) == (0, "")
        base, snapshot = f"{run}/checkpoint-0", f"100=file://{run}/checkpoint-100"
        code, out, err = opd("plan", "--base", base, "--snapshot", snapshot, "--name", name[-1], *more)
        assert (code, err) == (0, "") and "measured already" in out
    assert sorted(path.name for path in root.iterdir()) == list(names)
    for name in names:
        assert opd("verify", f"{root}/{name}/.opd/store")[0] == 0
        assert [path.name for path in (root / name / ".opd/store/runs").iterdir()] == [f"external.{name[-1]}"]


def test_colons_in_the_addresses_of_other_commands(opd, here, prefix, unpublished):
    store, copy = f"{here}/exp::a/store", f"{here}/exp::c/store"
    opd("measure", "--trajectory", prefix, "--name", "a", "--workers", 0, "--out", store)
    assert opd("import", store, "external.a/0")[0] == 0
    assert (
        opd("export", "external.a/0", "--to", copy)[0] == opd("verify", copy)[0] == opd("tables", "--out", copy)[0] == 0
    )
    watching = (
        "watch",
        "x",
        "--trajectory",
        f"{here}/exp::a",
        "--base",
        prefix / "checkpoint-0",
        "--against",
        "tiny.opd",
    )
    assert opd(*watching)[0] == 0
    assert watchlist.read(Store(default_uri()), "x").prefix == f"file://{here}/exp::a"
    assert sorted(path.name for path in here.iterdir()) == [".opd", "exp::a", "exp::c"]


@pytest.mark.parametrize("command", ["verify", "rm", "export", "regime", "report", "gc"])
def test_examples_of_a_help_text_stand_apart(command, opd):
    """argparse joins blanks, so that two commands would read as one."""
    said = " ".join(opd(command, "--help")[1].split())
    examples = re.split(r"Examples?: ", said)[1].split("; ")
    assert all(example.count("opd ") == 1 for example in examples)


def test_help_of_gc_names_all_that_it_deletes(opd):
    said = " ".join(opd("gc", "--help")[1].split())
    deleted, _, never = said.partition("Never deleted:")
    assert "teacher scores" in deleted and "caches" not in never


@pytest.mark.parametrize("command", ["show", "verdicts", "run"])
def test_a_study_may_be_a_file_wherever_help_asks_for_one(command, opd):
    assert "./mine.py" in opd("study", command, "--help")[1]
