"""`opd monitor`: what it prints, how it ends, and a run that is followed while it trains."""

import argparse
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from pipelines import lake
from pipelines.cli import monitor
from pipelines.cli.options import Parser
from pipelines.store.objects import Store, default_uri
from tests.pipelines.runs.planted import STEPS, Q, plant, weights

SOON = ("--watch", "--interval", 0.05)


@pytest.fixture
def run(here, capsys):
    """run(*arguments): exit code, stdout and stderr of `opd monitor`, against s.ref."""

    def command(*arguments, against="s.ref"):
        top = Parser(prog="opd")
        monitor.register(top.add_subparsers(required=True, parser_class=Parser))
        given: argparse.Namespace = top.parse_args(["monitor", "--against", against, *map(str, arguments)])
        return given.command(given), *capsys.readouterr()

    return command


@pytest.fixture
def store(here):
    """The default store with three complete runs of s.ref."""
    made = Store(default_uri())
    for seed in range(3):
        plant(made, "s.ref", seed)
    return made


@pytest.fixture
def training(tmp_path):
    """training(*steps, **how): a thread that writes these checkpoints; the prefix is training.prefix."""
    threads, prefix = [], tmp_path / "run"

    def save(step, **how):
        folder = prefix / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file(weights(step, 0, **how), folder / "model.safetensors")
        (folder / "config.json").write_text("{}")

    def write(*steps, **how):
        def work():
            for step in steps:
                time.sleep(0.2)
                save(step, **how)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    vars(write).update(prefix=prefix, save=save)
    yield write
    for thread in threads:
        thread.join()


def steps(recipe):
    return sorted(lake.scan("monitor").filter(recipe=recipe).collect()["step"].unique())


def test_a_run_inside_its_band_ends_with_0_and_one_sentence(run, store):
    plant(store, "s.new", 3)
    code, told, err = run("s.new", "--seed", 3, "--quantity", "stable_rank,stable_rank_ratio,similarity_previous")
    assert (code, err) == (0, "")
    head, *lines = told.split("\n\n")[0].splitlines()
    assert head.split() == ["step", "norm", "stable_rank", "stable_rank_ratio", "similarity_previous"]
    assert [line.split()[0] for line in lines] == ["1", "2", "4", "8", "16"]
    assert told.splitlines()[-1].startswith("s.new seed 3 stays inside the band: ")
    assert "false alarms: 0 of these 3 leave the band of the others" in told
    assert "of s.ref seed 0, s.ref seed 1, s.ref seed 2" in told and "*" not in told.split("\n\n")[0]
    assert steps("s.new") == [1, 2, 4, 8, 16]


def test_a_run_that_left_ends_with_4_and_says_where(run, store):
    plant(store, "s.flat", 0, decay=0.95)
    code, told, _ = run("s.flat", "--quantity", "stable_rank", "--view", "master")
    assert code == monitor.LEFT == 4
    last = told.splitlines()[-1]
    assert last.startswith("s.flat seed 0 left the band at step ") and "stable_rank is " in last and "(master)" in last
    assert " *" in told.split("\n\n")[0]
    assert set(lake.scan("monitor").collect()["quantity"]) > {"stable_rank"}, "what is shown decides, all is written"


def test_only_the_quantities_asked_for_decide(run, store):
    plant(store, "s.flat", 0, decay=0.95)
    assert run("s.flat", "--quantity", "stable_rank_ratio")[0] == 0
    assert run("s.flat", "--quantity", "stable_rank_ratio,stable_rank")[0] == 4


def test_a_run_in_training_is_judged_by_what_there_is(run, store):
    plant(store, "s.flat", 0, decay=0.95, steps=STEPS[:-2], end=False)
    assert run("s.flat", "--quantity", "stable_rank")[0] == 4
    assert steps("s.flat") == [1, 2, 4]


def test_norms_that_no_reference_reached_have_no_verdict(run, store):
    plant(store, "s.far", 0, steps=(0, 2000))
    code, told, _ = run("s.far", "--quantity", "stable_rank")
    assert code == 0 and "has no verdict" in told.splitlines()[-1]


def test_checkpoints_under_a_prefix_are_measured_and_judged(run, store, training):
    for step in STEPS:
        training.save(step)
    code, told, _ = run("mine", "--trajectory", training.prefix, "--quantity", "similarity_projected")
    assert code == 0 and "external.mine stays inside" in told
    assert steps("external.mine") == [1, 2, 4, 8, 16]
    again = run("external.mine", "--quantity", "similarity_projected")[1]
    assert again.split("\n\n")[0] == told.split("\n\n")[0]


def test_watching_stops_at_the_trip(run, store, training):
    training.save(0)
    training(1, 2, 4, 8, 16, decay=0.95)
    code, told, _ = run("mine", "--trajectory", training.prefix, *SOON, "--quantity", "stable_rank", "--until", 16)
    assert code == 4
    lines = [line for line in told.splitlines() if line.startswith("external.mine: step")]
    assert [int(line.split()[2]) for line in lines] == steps("external.mine")
    assert "left the band at step 2" in told.splitlines()[-1], "however many had appeared by then"
    assert lines[-1].endswith("stable_rank") and "is outside" in lines[-1]


def test_watching_a_run_that_stays_inside_goes_on_to_its_end(run, store, training):
    training.save(0)
    training(*STEPS[1:])
    arguments = ("--quantity", "stable_rank,similarity_previous", "--until", 16)
    code, told, _ = run("mine", "--trajectory", training.prefix, *SOON, *arguments)
    assert code == 0 and steps("external.mine") == list(STEPS[1:])
    assert "external.mine stays inside" in told.splitlines()[-1]


def test_a_run_of_this_store_can_be_watched_by_its_folder(run, store):
    plant(store, "s.flat", 0, decay=0.95, end=False)
    folder = store.path("runs/s.flat/seed-0")
    code, told, _ = run("mine", "--trajectory", folder, *SOON, "--quantity", "stable_rank")
    assert code == 4 and "external.mine left the band" in told


def test_a_weight_that_is_not_finite_ends_with_3(run, store):
    trajectory = plant(store, "s.broken", 0, steps=STEPS[:-1], end=False)
    broken = weights(16, 0)
    broken[Q][0, 0] = torch.inf
    trajectory.commit(16, broken, None)
    code, _, err = run("s.broken", "--quantity", "stable_rank")
    assert code == 3 and "step 16: 1 non-finite weights" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no run; name one"),
        (("s.new", "--watch"), "--watch goes with --trajectory"),
        (("s.new", "--base", "x"), "--base goes with --trajectory"),
        (("--trajectory", "x", "--until", "5"), "--until goes with --watch"),
        (("--trajectory", "x", "--interval", "5"), "--interval goes with --watch"),
        (("--trajectory", "x", "--watch", "--interval", "0"), "--interval 0 is not a number of seconds"),
        (("--trajectory", "x", "--watch", "--until", "0"), "--until 0 is not a step from 1 up"),
        (("s.new", "--workers", "-1"), "--workers -1 is negative"),
        (("s.new", "--quantity", "loss"), "--quantity names 'loss'; known: stable_rank"),
        (("s.none",), "holds no run 's.none'; it has: s.ref"),
    ],
)
def test_mistakes_are_refused_in_one_line(run, store, arguments, message):
    with pytest.raises(ValueError) as caught:
        run(*arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert lake.scan("monitor").collect().is_empty()


def test_a_reference_that_is_not_there_is_refused_before_anything_is_waited_for(run, store, training):
    training.save(0)
    with pytest.raises(ValueError, match=r"holds no reference run 's\.gone'; it has: s\.ref"):
        run("--trajectory", training.prefix, *SOON, against="s.gone")
    assert lake.scan("update_norm").collect().is_empty()


def test_the_help_tells_the_exit_codes():
    assert f"{monitor.LEFT} the run left its band" in monitor.EXIT_CODES
