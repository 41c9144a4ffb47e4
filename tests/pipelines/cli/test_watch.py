"""`opd measure --watch` beside a run that is still training."""

import threading
import time

import pytest
import torch

from pipelines import lake
from pipelines.runs.external import watching
from tests.pipelines.cli.conftest import NORM, save, weights

pytestmark = pytest.mark.usefixtures("unpublished")
SOON = ("--watch", "--interval", 0.05, "--name", "mine", "--workers", 0)


@pytest.fixture
def training(prefix):
    """training(*steps): a thread that writes these checkpoints under the prefix, one after the other."""
    threads = []

    def write(*steps, tensors=weights):
        def run():
            for step in steps:
                time.sleep(0.3)
                save(prefix / f"checkpoint-{step}", tensors(step))

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield write
    for thread in threads:
        thread.join()


def steps(table):
    return sorted(lake.scan(table).collect()["step"].unique())


def test_checkpoints_are_measured_as_they_appear(opd, prefix, training):
    training(300, 400)
    code, told, err = opd("measure", "--trajectory", prefix, *SOON, "--until", 400)
    assert (code, err) == (0, "")
    lines = told.splitlines()
    assert [line.split(" measured in ")[0] for line in lines if " measured in " in line] == [
        f"external.mine: step {step}" for step in (100, 200, 300, 400)
    ]
    assert "external.mine: nulls measured against step 400" in lines
    for table in ("update_support", "rotation", "nulls"):
        assert steps(table) == [100, 200, 300, 400]
    locked = lake.scan("locking").collect().select("step", "step_other").unique().rows()
    assert len(locked) == 6
    whole = lake.scan("hill").collect()
    assert opd("measure", "--trajectory", prefix, "--name", "once", "--workers", 0)[0] == 0
    both = [lake.scan("hill").filter(recipe=f"external.{name}").drop("recipe").collect() for name in ("mine", "once")]
    assert both[0].equals(both[1]) and len(whole) == len(both[0])


def test_steps_that_are_named_may_be_still_to_come(opd, prefix, training):
    training(300)
    named = ("--nulls-at", 200, "--spectra-at", "100,300")
    code, told, err = opd("measure", "--trajectory", prefix, *SOON, "--until", 300, *named)
    assert (code, err) == (0, "") and "note: nulls at 2 of 3 steps (200, 300); " in told
    assert (steps("nulls"), steps("spectral_drift"), steps("hill")) == ([200, 300], [100, 300], [100, 200, 300])
    code, told, _ = opd("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0, *named)
    assert code == 0 and "were measured already" in told


def test_what_is_there_is_taken_up_and_an_interrupt_keeps_it(opd, prefix, monkeypatch):
    assert opd("measure", "--trajectory", prefix, "--name", "mine", "--workers", 0)[0] == 0

    def interrupted(seconds):
        if seconds == 0.05 and len(polls) > 2:
            raise KeyboardInterrupt
        polls.append(seconds)

    polls = []
    monkeypatch.setattr(
        watching.wait_for_checkpoints,
        "__kwdefaults__",
        watching.wait_for_checkpoints.__kwdefaults__ | {"sleep": interrupted},
    )
    code, told, err = opd("measure", "--trajectory", prefix, *SOON)
    assert code == 130 and "the same command continues" in err
    assert "step 100 was measured already" in told and "step 200 was measured already" in told
    assert steps("nulls") == [100, 200]


def test_tables_are_chosen_and_nulls_wait(opd, prefix):
    arguments = ("--diagnostics", "hill,nulls", "--until", 200, "--base", prefix / "checkpoint-0")
    code, _, err = opd("measure", "--trajectory", prefix, *SOON, *arguments)
    assert (code, err) == (0, "")
    assert steps("hill") == steps("nulls") == [100, 200] and steps("rotation") == []
    assert set(lake.scan("nulls").collect()["final_step"]) == {200}
    assert "nulls" not in opd("measure", "--trajectory", prefix, *SOON, "--diagnostics", "hill", "--until", 200)[1]


def test_a_broken_weight_is_named_once_and_watching_goes_on(opd, prefix, training):
    def broken(step):
        found = weights(step)
        if step == 300:
            found[NORM][0] = torch.inf
        return found

    training(300, 400, tensors=broken)
    code, _, err = opd("measure", "--trajectory", prefix, *SOON, "--until", 400)
    assert (code, err) == (3, "error: model.norm: step 300: 1 non-finite weights\n")
    assert steps("update_support") == [100, 200, 300, 400]


def test_a_run_without_its_first_step_needs_a_base(opd, tmp_path, here):
    save(tmp_path / "run" / "checkpoint-100", weights(100))
    code, told, err = opd("measure", "--trajectory", tmp_path / "run", *SOON)
    assert (code, told) == (2, "") and "holds no step 0" in err and "--base REF" in err
