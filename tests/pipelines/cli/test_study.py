"""`opd study` and `opd report`, and how any command ends."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from opd_ops.recipe import AdamW
from pipelines.cli import options, study
from pipelines.runs.resources import budget
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store, default_uri
from pipelines.store.trajectory import Trajectory
from pipelines.studies import qwen3
from pipelines.studies.catalog import find_study

TINY = find_study("tiny")


def finish(recipe, seed):
    """The run is complete, with no weights."""
    trajectory = Trajectory(Store(default_uri()), recipe.name, seed)
    identity, fingerprint = recipe.identity(), recipe.fingerprint()
    trajectory.register({"identity": identity, "fingerprint": fingerprint, "inputs": {}, "provenance": {}})
    trajectory.finish({"step": 0, "digest": "", "snapshots": [], "evaluation": []})


def test_studies_are_listed_with_what_the_store_holds(opd, here):
    code, told, err = opd("study", "list")
    assert (code, err) == (0, "")
    for name in ("tiny", "smollm", "qwen3-8b"):
        study = find_study(name)
        assert study.title in told and study.minutes in told
        for suite, arms in study.suites.items():
            assert f"{suite} 0/{len(arms) * len(study.seeds)}" in told
    assert told.count(default_uri()) == 1 and list(here.iterdir()) == []


def test_a_study_is_shown_arm_by_arm(opd):
    opd_arm = TINY.every_arm()[1]
    finish(opd_arm, 2)
    code, told, err = opd("study", "show", "tiny")
    assert (code, err) == (0, "")
    assert len(told.splitlines()) <= 60 and "GiB" not in told
    lines = [line.split() for line in told.splitlines()]
    assert ["opd", "opd", "3e-05", "100", "1/3", "trained", "sft"] in lines
    assert ["rlvr", "rlvr", "3e-05", "100", "-", "sft"] in lines
    for suite, arms in TINY.suites.items():
        assert f"{suite}: {len(arms)} arms, 0 of {3 * len(arms)} runs measured" in told
    assert all(recipe.arm in re.split(r"[\s,]+", told) for recipe in TINY.every_arm()), "by name at least"
    of_suite = opd("study", "show", "tiny", "--suite", "scaling")[1]
    assert [line for line in of_suite.splitlines() if line.startswith("w64-opd ")] and "sft-slow" not in of_suite
    whole = [line.split()[:2] for line in opd("study", "show", "tiny", "--all")[1].splitlines()]
    runs = [["base", "0"], ["teacher", "0"]] + [[r.arm, str(seed)] for r in TINY.every_arm() for seed in TINY.seeds]
    assert [line for line in whole if line in runs] == runs
    assert "models/smollm2-135m-instruct" in opd("study", "show", "smollm")[1]


def test_a_study_for_gpus_is_shown_with_what_its_runs_take(opd):
    code, told, err = opd("study", "show", "qwen3-8b")
    assert (code, err) == (0, "")
    assert told.count("GPU hours") == len(find_study("qwen3-8b").every_arm())
    config = qwen3.QWEN3_8B
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layer = 2 * hidden * (queries + keys) + 3 * hidden * config["intermediate_size"] + 2 * hidden + 2 * head
    weights = config["num_hidden_layers"] * layer + 2 * config["vocab_size"] * hidden + hidden
    assert told.count(f"{weights / 1e9:.2f}e9 weights") == 3
    tokens = budget.PROMPT + qwen3.opd().rollout.max_new_tokens
    cached = 2 * 2 * keys * config["num_hidden_layers"] * tokens * qwen3.opd().rollout.batch
    logits = 4 * config["vocab_size"] * qwen3.opd().rollout.max_new_tokens
    held = {"masters, fp32": 4 * weights / 2, "moments, fp32": 8 * weights / 2, "log-softmax, fp32": logits}  # of two
    run = told[told.index("qwen3-8b.opd: ") : told.index("qwen3-8b.rlvr: ")]
    cells = [re.split(r"  +", line.strip()) for line in run.splitlines()]
    for name, size in {**held, f"keys and values, {qwen3.opd().rollout.batch} rows": cached}.items():
        assert [f"{size / 2**30:.1f}"] in [line[line.index(name) + 1 :][:1] for line in cells if name in line], name
    assert f"6 snapshots of {4 * weights / 1e9:.1f} GB, {6 * 4 * weights / 1e9:.0f} GB" in run
    actors = ["trainer", "worker", "rollout", "teacher"]
    assert [line[0] for line in cells if len(line) > 1 and re.fullmatch(r"\d x \d", line[1])] == actors
    assert "does not fit in" not in run and run.count("fits on one GPU") == len(actors)
    assert "factor of two" in told and f"{budget.RATE:.0%}" in told


def test_a_smaller_gpu_is_planned_for_by_its_name(opd):
    needed = lambda told: [int(line.split()[0]) for line in told.splitlines() if "needed" in line]
    small, large = (opd("study", "show", "qwen3-8b", "--gpu", name)[1] for name in ("h100", "h200"))
    assert all(s > at for s, at in zip(needed(small), needed(large), strict=True))
    assert "H100" in small and "H100" not in large
    assert opd("study", "show", "qwen3-8b", "--gpu", "abacus")[0] == 2


def test_a_stored_run_of_another_recipe_is_one_line_wherever_it_is_met(opd, refused):
    finish(replace(TINY.every_arm()[1], optimizer=AdamW(learning_rate=0.5)), 0)
    assert "runs/tiny.opd/seed-0 holds a run of another recipe" in refused("report", "tiny")
    code, out, _ = opd("study", "show", "tiny")
    assert code == 0 and "another recipe" in out and "\nruns/tiny.opd/seed-0 holds a run of another recipe" in out


def test_a_study_runs_in_the_process_that_launches_it(opd, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "execv", lambda path, command: seen.append((path, command)))
    opd("study", "run", "tiny", "--recipe", "tiny.opd", "--recipe", "tiny.sft", "--seed", "2", "--seed", "0")
    ((path, command),) = seen
    assert path == command[0] == sys.executable
    assert command[1:6] == ["-P", "-m", "assets.launch", "tiny", "--suite"]
    assert " ".join(command[6:]) == "core --recipe tiny.opd --recipe tiny.sft --seed 2 --seed 0"
    opd("study", "run", "tiny", "--suite", "objectives", "--recipe", "tiny.opd-mix-05")
    assert " ".join(seen[1][1][5:]) == "--suite objectives --recipe tiny.opd-mix-05"
    opd("study", "run", "tiny", "--suite", "controls", "--suite", "interventions")
    assert " ".join(seen[2][1][5:]) == "--suite controls --suite interventions"


def test_a_report_is_written_again_from_what_is_measured(opd, here, monkeypatch):
    calls = []
    monkeypatch.setattr(study, "count_progress", lambda store, study: (3, 12))
    for name, page in (("compare_study", None), ("publish_report", "index")):
        answer = page and f"reports/tiny/{page}.html"
        told = lambda store, study, name=name, answer=answer: calls.append((name, study.name)) or answer
        monkeypatch.setattr(comparing, name, told)
    code, told, err = opd("report", "tiny")
    assert (code, err) == (0, "")
    assert calls == [("compare_study", "tiny"), ("publish_report", "tiny")]
    assert told == "3 of 12 runs measured\npage: .opd/store/reports/tiny/index.html (open it in a browser)\n"


def test_a_suite_counts_once_a_run_of_it_is_there(opd, here, monkeypatch):
    """Nine of twelve core runs are measured, and one run of the other suite is in the store."""
    done = {(arm.name, seed) for arm in TINY.arms("core") for seed in (0, 1, 2)} - {("tiny.sft", n) for n in (0, 1, 2)}
    monkeypatch.setattr(comparing, "complete", lambda store, recipe, seed: True)
    monkeypatch.setattr(comparing, "is_measured", lambda store, recipe, seed, settings: (recipe.name, seed) in done)
    store, others = Store(default_uri()), TINY.arms("objectives")
    assert study.count_progress(store, TINY) == (9, 12)
    assert study.by_suite(store, TINY) == {suite: (0, 3 * len(arms)) for suite, arms in TINY.suites.items()} | {
        "core": (9, 12)
    }
    finish(others[0], 1)
    assert study.count_progress(store, TINY) == (9, 12 + 3 * len(others))
    assert len(comparing.list_missing(store, TINY)) == 3 + 3 * len(others)
    done.add((others[0].name, 1))
    assert study.by_suite(store, TINY)["objectives"] == (1, 3 * len(others))


def test_an_interrupt_ends_with_130_and_one_line(opd, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "list_studies", interrupted)
    code, out, err = opd("study", "list")
    assert (code, out) == (130, "")
    assert err.count("\n") == 1 and "the same command continues" in err


def test_the_installed_command_is_this_one(here):
    opd = Path(sys.executable).with_name("opd")
    done = subprocess.run([opd, "report", "tyni"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    known = "known: tiny, smollm, qwen3-8b; did you mean 'tiny'?"
    assert done.stderr == f"error: unknown study or import 'tyni'; {known}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(unbuffered, here):
    (here / ".opd/store").mkdir(parents=True)
    command = [sys.executable, "-m", "pipelines.cli", "tables"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_error_of_the_program_itself_is_not_blamed_on_the_store(opd, monkeypatch):
    monkeypatch.setattr(options, "default_uri", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opd("tables")


def test_a_run_of_a_changed_recipe_hides_no_other_study(opd, monkeypatch):
    def unmeasured(store, study, suite):
        if study.name == "tiny":
            raise ValueError("runs/tiny.opd/seed-0 holds a run of another recipe")
        return ["smollm.opd seed 0"]

    monkeypatch.setattr(comparing, "list_unmeasured", unmeasured)
    code, out, err = opd("study", "list")
    assert (code, err) == (0, "")
    assert "holds a run of another recipe" in out and "smollm" in out and "core 2/3" in out
