"""Weights into an engine of its own: pushed when it holds others, labelled, and proved by a probe."""

import pytest
import torch

from opd_ops.models import assemble
from opd_ops.recipe import Resources
from opd_ops.rollout.hf import HfEngine
from opd_ops.training.syncing import PROBES


class Spied(HfEngine):
    """An engine of its own that notes what is asked of it."""

    def __init__(self, model):
        super().__init__(model, shared=False)
        self.calls = []

    def sync(self, weights, version):
        self.calls.append(("sync", version))
        return super().sync(weights, version)

    def generate(self, requests, sampling, *, version):
        self.calls.append(("generate", version))
        return super().generate(requests, sampling, version=version)

    def sleep(self):
        self.calls.append(("sleep", self.version))
        self._version = -1  # as on a GPU, where what sleeps forgets

    def wake(self):
        self.calls.append(("wake", self.version))


@pytest.fixture
def engine(weights):
    config, tensors = weights(1)
    return Spied(assemble(config, tensors, torch.float32))  # other weights than the trainer's


@pytest.mark.parametrize("name", ["opd", "rlvr", "mix"])
def test_an_engine_of_its_own_draws_what_the_trainers_model_draws(name, trainer, engine):
    own, beside = trainer(name), trainer(name, given={"engine": engine})
    for _ in range(3):
        one, other = own.advance(), beside.advance()
        assert one.responses == other.responses
        assert one.row == other.row
    assert engine.calls == [(what, step) for step in range(3) for what in ("sync", "generate")]
    assert own.syncing.rows == []


def test_every_push_has_a_row_with_a_probe(trainer, engine):
    run = trainer("rlvr", given={"engine": engine})
    rows = [row for _ in range(3) for row in run.advance().syncs]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["maximum"] < 1e-5 and row["outside"] == 0 and row["tokens"] > 0 for row in rows)
    assert len({row["digest"] for row in rows}) == 3
    assert len(run.syncing.probe[0]) <= PROBES


def test_a_probe_finds_an_engine_that_serves_other_weights(trainer, engine, monkeypatch):
    run = trainer("rlvr", given={"engine": engine})
    run.advance()
    monkeypatch.setattr(Spied, "sync", lambda self, w, v: setattr(self, "_version", v) or run_sync(self, v))

    def run_sync(self, version):  # labels the version and copies nothing
        from opd_ops.rollout.rollout import Synced

        return Synced(version=version, tensors=0, bytes=0, digest="")

    run.optimizer.masters["model.norm.weight"].mul_(2)
    run.optimizer._serve()
    run.syncing.changed = True
    run.syncing.push(run.optimizer.served, run.step)
    assert run.syncing.take_rows()[-1]["maximum"] > 0.1


def test_evaluation_pushes_only_what_is_new(trainer, engine):
    run = trainer("sft", given={"engine": engine})
    run.evaluate()
    run.evaluate()
    assert [call for call in engine.calls if call[0] == "sync"] == [("sync", 0)]
    run.advance()
    run.evaluate()
    assert engine.calls[-3][0] == "sync" and engine.calls[-3][1] == 1


def test_a_sleeping_engine_is_woken_pushed_to_and_put_to_sleep_again(trainer, engine):
    own = trainer("rlvr")
    run = trainer("rlvr", given={"engine": engine}, resources=Resources(sleep=True))
    for _ in range(2):
        assert own.advance().responses == run.advance().responses
    assert [call[0] for call in engine.calls] == ["wake", "sync", "generate", "sleep"] * 2


def test_a_restored_trainer_pushes_its_weights_whatever_the_engine_says(trainer, engine):
    through = trainer("opd")
    for _ in range(2):
        through.advance()
    tensors, facts = through.state()
    state = {name: tensor.clone() for name, tensor in tensors.items()}
    run = trainer("opd", given={"engine": engine})
    for _ in range(2):
        run.advance()  # the engine holds a version 2 too, of the same bits here; it is pushed again nevertheless
    engine.calls.clear()
    run.restore(state, facts | {"probe": run.syncing.probe}, 2)
    assert run.advance().row == through.advance().row
    assert engine.calls[0] == ("sync", 2)
