"""Checkpoints that appear while a prefix is watched."""

from itertools import islice
from pathlib import Path

import pytest

from pipelines.runs.external.watching import FIRST, wait_for_checkpoints
from tests.pipelines.runs.conftest import drifted, model, save


class Training:
    """A run that does something at each of the watcher's pauses, and notes how long they are."""

    def __init__(self, *happenings):
        self.happenings, self.pauses = iter(happenings), []

    def __call__(self, seconds):
        self.pauses.append(seconds)
        for happening in islice(self.happenings, 1):
            happening()


def steps(prefix, training, **options):
    return [
        [step for step, _ in ready]
        for ready in wait_for_checkpoints(str(prefix), sleep=training, **{"interval": 30.0, "until": 300} | options)
    ]


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(prefix, step, tensors=None):
    return lambda: save(prefix / f"checkpoint-{step}", drifted(step) if tensors is None else tensors)


def test_what_stands_still_for_two_polls_is_ready(prefix):
    write(prefix, 0, model())()
    write(prefix, 100)()
    training = Training(lambda: None, write(prefix, 200), lambda: None, write(prefix, 300))
    assert steps(prefix, training) == [[0, 100], [200], [300]]
    assert training.pauses[0] == FIRST and set(training.pauses[1:]) == {30.0}


def test_an_empty_prefix_is_waited_on(prefix):
    assert steps(prefix, Training(lambda: None, write(prefix, 300))) == [[300]]
    with pytest.raises(ValueError, match=r"is not a folder; name the folder or URI prefix"):
        steps(prefix / "none", Training())


def test_what_is_still_being_written_is_left(prefix, tmp_path):
    whole = Path(save(tmp_path / "whole", drifted(1)), "model.safetensors").read_bytes()
    file = prefix / "step_300" / "model.safetensors"
    file.parent.mkdir()

    def grow(length):
        return lambda: file.write_bytes(whole[:length])

    # Cut short twice, then whole, then touched again: only what has stood still since is ready.
    training = Training(grow(100), grow(len(whole) - 1), grow(len(whole)), grow(len(whole)), lambda: None)
    assert steps(prefix, training) == [[300]]
    assert len(training.pauses) == 5


def test_it_ends_with_the_step_or_a_later_one(prefix):
    write(prefix, 200)()
    training = Training(write(prefix, 100), write(prefix, 400))
    assert steps(prefix, training) == [[200], [100], [400]]
    assert steps(prefix, Training(), until=150) == [[100, 200, 400]]


def test_what_will_not_become_readable_is_refused(prefix):
    write(prefix, 100)()
    (prefix / "checkpoint-200").mkdir()
    (prefix / "checkpoint-200" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^snapshot 200: .* pickled .*convert them"):
        steps(prefix, Training())


def test_a_prefix_on_s3_is_watched(s3, folders):
    from pipelines.store.objects import Store

    data = Store(f"file://{folders['one']}").read("model.safetensors")
    put = lambda step: s3.write(f"run/step-{step}/model.safetensors", data)
    put(100)
    assert steps(f"{s3.uri}/run", Training(lambda: put(300))) == [[100], [300]]
