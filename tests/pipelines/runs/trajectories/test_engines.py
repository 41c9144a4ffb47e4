"""Rollout actors draw what one engine in this process draws, bit for bit, whatever dies meanwhile."""

import json
import os
import signal
import threading

import pytest
import torch

from opd_ops.models import assemble, configuration, initialise
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.rollout import Request, Sampling
from pipelines.runs.cluster.attach import use_one_thread
from pipelines.runs.resources.placement import Spot
from pipelines.runs.trajectories import engines
from pipelines.runs.trajectories.engines import EngineSpec, RemoteEngine
from tests.pipelines.runs.mini import ARCHITECTURE

CONFIG = configuration(ARCHITECTURE, pad=0, bos=1, eos=2)
SPEC = EngineSpec(config=json.loads(CONFIG.to_json_string(use_diff=False)))
NEVER = 99  # an end of sequence outside the vocabulary
SAMPLING = Sampling(max_new_tokens=12, temperature=1.0, eos=2, pad=0, batch=4)


def weights(seed, *, rounded=True):
    found = initialise(CONFIG, seed)
    return {name: w.to(torch.bfloat16).float() if rounded else w for name, w in found.items()}


def requests(count, step=1):
    return [Request(prompt=[1, 4 + i % 5, *range(3, 5 + i % 3)], address=(0, step, i, 0)) for i in range(count)]


@pytest.fixture(scope="module")
def remote(workers):
    """Two actors."""
    use_one_thread()
    engine = RemoteEngine(SPEC, [Spot(), Spot()])
    yield engine
    engine.close()


@pytest.fixture
def local():
    return HfEngine(assemble(CONFIG, weights(0), torch.float32, rounded=False), shared=False)


@pytest.mark.parametrize("rounded", [True, False])
def test_a_push_arrives_in_every_actor_as_it_does_in_one_engine(remote, local, rounded):
    pushed = weights(1, rounded=rounded)
    parameters = {name: torch.nn.Parameter(w) for name, w in pushed.items()}
    assert remote.sync(parameters, 5) == local.sync(pushed, 5)
    assert remote.version == 5
    assert (remote.name, remote.release) == (local.name, local.release)
    assert len(set(remote.pids)) == 2 and os.getpid() not in remote.pids
    wire = engines._wire(pushed)
    assert all((w.dtype == "uint16") == rounded for w in wire.values() if w.ndim > 1), "bf16 where nothing is lost"


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("count", [0, 3, 4, 22])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_what_is_drawn_is_that_of_one_engine_bit_for_bit(remote, local, rounded, count, temperature):
    pushed = weights(2, rounded=rounded)
    remote.sync(pushed, 0)
    local.sync(pushed, 0)
    sampling = Sampling(max_new_tokens=12, temperature=temperature, eos=2, pad=0, batch=4)
    found = remote.generate(requests(count), sampling, version=0)
    assert found == local.generate(requests(count), sampling, version=0)
    assert len(found) == count and {sampled.version for sampled in found} <= {0}


def test_a_later_push_replaces_the_weights(remote, local):
    remote.sync(weights(3), 1)
    before = remote.generate(requests(6), SAMPLING, version=1)
    remote.sync(weights(4), 2)
    local.sync(weights(4), 2)
    after = remote.generate(requests(6), SAMPLING, version=2)
    assert after == local.generate(requests(6), SAMPLING, version=2)
    assert [s.tokens for s in after] != [s.tokens for s in before]


def test_scores_are_those_of_one_engine(remote, local):
    remote.sync(weights(3), 1)
    local.sync(weights(3), 1)
    prompts, responses = [[1, 4], [1, 5, 6]], [[7, 8, 2], [9]]
    assert remote.score(prompts, responses) == local.score(prompts, responses)


def test_another_version_than_is_held_is_refused(remote):
    remote.sync(weights(0), 7)
    for wrong in (6, -1):
        with pytest.raises(ValueError, match=f"version {wrong} were asked for, and the rollout actors hold version 7"):
            remote.generate(requests(1), SAMPLING, version=wrong)


def test_weights_of_another_model_are_refused_and_the_old_ones_serve_no_more(remote):
    remote.sync(weights(0), 7)
    names = sorted(weights(0))
    with pytest.raises(ValueError, match=f"lack.* {names[0]}"):
        remote.sync({name: w for name, w in weights(0).items() if name != names[0]}, 8)
    assert remote.version == -1
    with pytest.raises(ValueError, match="hold version -1"):
        remote.generate(requests(1), SAMPLING, version=7)
    remote.sync(weights(0), 8)
    assert len(remote.generate(requests(1), SAMPLING, version=8)) == 1


def test_an_actor_that_serves_other_weights_than_were_sent_is_an_error(remote, monkeypatch):
    monkeypatch.setattr(engines, "_digest", lambda wire: "0" * 64)
    with pytest.raises(
        ValueError, match=r"serves other weights \([0-9a-f]{12}\) of version 3 than were sent \(0{12}\)"
    ):
        remote.sync(weights(0), 3)
    assert remote.version == -1


def test_an_actor_killed_while_it_draws_is_replaced_with_the_weights_of_now(remote, local):
    remote.sync(weights(5), 0)
    remote.sync(weights(6), 1)
    local.sync(weights(6), 1)
    long = Sampling(max_new_tokens=300, temperature=1.0, eos=NEVER, pad=0, batch=2)
    expected = local.generate(requests(24), long, version=1)
    replaced, started = remote.pool.replaced, len(remote.pids)
    pid = remote.pool.call_first("pid")
    os.kill(pid, signal.SIGSTOP)  # so that it cannot have answered when it is killed
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    found = remote.generate(requests(24), long, version=1)
    killer.join()
    assert found == expected
    assert remote.pool.replaced == replaced + 1 and len(remote.pids) == started + 1
    assert remote.generate(requests(24), long, version=1) == expected
    assert remote.pool.replaced == replaced + 1


def test_on_a_cpu_sleep_keeps_the_weights(remote, local):
    remote.sync(weights(0), 4)
    local.sync(weights(0), 4)
    for engine in (remote, local):
        engine.sleep()
        engine.wake()
    assert remote.version == local.version == 4
    assert remote.generate(requests(5), SAMPLING, version=4) == local.generate(requests(5), SAMPLING, version=4)


def test_actors_that_forget_their_weights_asleep_want_a_push(remote, monkeypatch):
    remote.sync(weights(0), 4)
    monkeypatch.setattr(remote.pool, "call_each", lambda method: [4, -1])
    remote.sleep()
    with pytest.raises(ValueError, match="hold version -1"):
        remote.generate(requests(1), SAMPLING, version=4)


def test_before_the_first_push_nothing_is_drawn(workers):
    engine = RemoteEngine(SPEC, [Spot()])
    try:
        with pytest.raises(ValueError, match="hold version -1"):
            engine.generate(requests(1), SAMPLING, version=-1)
        engine.sleep()
        assert engine.version == -1
        with pytest.raises(ValueError, match="no weights have been pushed"):
            engine.score([[1]], [[2]])
    finally:
        engine.close()
