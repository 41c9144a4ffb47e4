"""What a run's processes are expected to hold, and what is asked of the cluster for it."""

import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from opd_ops import models
from opd_ops.recipe import Constraint, FinalOf, Precision, Random, Resources, Teacher, Weights, Workers
from opd_ops.training.constraint import Confined
from opd_ops.training.subspace import Subspace
from pipelines.runs.cluster import free_memory
from pipelines.runs.cluster.worker_failures import WorkerFailed
from pipelines.runs.resources import memory as held
from pipelines.runs.resources.budget import actors, budget, resume
from pipelines.runs.resources.memory import PROCESS, Memory, memory
from pipelines.runs.resources.placement import Placement, Spot, enlarge_memory, require, reserve
from pipelines.runs.resources.sizes import count_sizes
from pipelines.runs.trajectories import group, training
from pipelines.studies import qwen3
from tests.pipelines.runs import mini

GB = 10**9


def mini_sizes():
    found = count_sizes(vars(mini.ARCHITECTURE))
    assert found is not None
    return found


def parts(recipe):
    student = mini_sizes()
    return {part.name: part.bytes for part in actors(recipe, student, student)[0].parts}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_sizes_are_counted_without_building_the_model(family, tied):
    config = models.configuration(replace(mini.ARCHITECTURE, family=family), pad=0, bos=1, eos=2)
    config.tie_word_embeddings = tied
    found, weights = count_sizes(config.to_dict()), models.initialise(config, 0)
    assert found is not None and found.parameters == sum(w.numel() for w in weights.values())
    norms = sum(w.numel() for w in weights.values() if w.ndim == 1)
    assert found.products == found.parameters - norms - (0 if tied else weights["lm_head.weight"].numel())
    assert count_sizes({"hidden_size": 3}) is None
    for part in ("q", "k", "v", "o", "gate", "up", "down"):
        name = f"model.layers.0.{'self_attn' if part in 'qkvo' else 'mlp'}.{part}_proj.weight"
        assert found.shape(part) == tuple(weights[name].shape)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("mode", ["gradient", "update", "compressed"])
def test_a_constraint_counts_what_it_keeps(side, mode, arm):
    config = models.configuration(mini.ARCHITECTURE, pad=0, bos=1, eos=2)
    masters = models.initialise(config, 0)
    constraint = Constraint(basis=Random(), rank=4, side=side, mode=mode)
    recipe = arm("pre", constraint=constraint)
    frames = {}
    for name, w in masters.items():
        sides = {"left": torch.eye(len(w), 4).double(), "right": torch.eye(w.shape[-1], 4).double()}
        frames[name] = Subspace(**{one: frame for one, frame in sides.items() if side in (one, "both")})
    made = Confined(constraint, frames, masters, 0.0)
    bases = sum(one.nbytes for each in made.bases.values() for one in (each.left, each.right) if one is not None)
    own = {id(w) for w in masters.values()}
    trained = sum(w.nbytes for w in made.trained.values() if id(w) not in own)
    kept = trained + sum(w.nbytes for each in (made.last, made.coefficients) for w in each.values())
    found, free = parts(recipe), parts(arm("pre"))
    assert found["constraint's bases, float64"] == bases
    assert found["confined weights at the start, fp32"] == sum(w.nbytes for w in made.begin.values())
    assert found[f"what mode {mode} keeps"] == kept
    # AdamW moves the coefficients in place of their matrices.
    fewer = sum(w.numel() for w in made.begin.values()) - sum(c.numel() for c in made.coefficients.values())
    assert free["moments, fp32"] - found["moments, fp32"] == (8 * fewer if mode == "compressed" else 0)
    frozen = parts(replace(recipe, constraint=replace(constraint, others="frozen")))
    assert frozen["accumulated gradients, fp32"] == 4 * sum(w.numel() for w in made.begin.values())
    # What `Masters.state` adds of a constraint is what a resume state takes beside masters and moments.
    more = sum(w.nbytes for w in made.state().values()) - (8 * fewer if mode == "compressed" else 0)
    assert (
        resume(recipe, mini_sizes()) == resume(arm("pre"), mini_sizes()) + more == 12 * mini_sizes().parameters + more
    )
    assert frozen["masters, fp32"] == found["masters, fp32"] == free["masters, fp32"]


def test_the_plan_of_a_gpu_run_counts_its_constraint():
    student = count_sizes(qwen3.QWEN3_8B)
    free = replace(qwen3.sft(), constraint=None, resources=replace(qwen3.sft().resources, workers=1))
    confined = replace(free, constraint=Constraint(basis=Random(), rank=16, mode="update"))
    projections = 36 * sum(a * b for a, b in (student.shape(part) for part in qwen_parts()))
    more = budget(confined, student).actors[0].always - budget(free, student).actors[0].always
    assert more > 12 * projections, "the start in fp32, and the weights in float64"


def qwen_parts():
    return ("q", "k", "v", "o", "gate", "up", "down")


def test_a_trainer_takes_what_the_budget_counts_and_what_is_being_written(arm, store):
    recipe, student = arm("pre"), mini_sizes()
    trainer = actors(recipe, student, None, held.PROMPT)[0]
    found = memory(store, recipe, 0)
    assert found.trainer == PROCESS + max(
        trainer.peak + 8 * student.parameters, trainer.always + 12 * student.parameters
    )
    assert (found.rollout, found.teacher) == (0, 0)
    wide = memory(store, replace(recipe, precision=Precision(micro_batch=10**6)), 0)
    assert wide.trainer > 100 * found.trainer
    on_gpu = memory(store, replace(recipe, resources=Resources(gpus=1)), 0)
    assert on_gpu.trainer == PROCESS + 12 * student.parameters


def test_the_first_worker_takes_a_snapshot_and_a_state_more_and_the_others_their_part(arm, store):
    recipe, weights = arm("pre", resources=Resources(workers=2)), mini_sizes().parameters
    trainer, worker = actors(recipe, mini_sizes(), None, held.PROMPT)
    found = memory(store, recipe, 0)
    assert found.trainer == PROCESS + max(trainer.peak + 12 * weights, trainer.always + 24 * weights)
    assert found.worker == PROCESS + max(worker.peak, worker.always + 4 * weights) < found.trainer
    assert memory(store, arm("pre"), 0).worker == 0
    on_gpus = memory(store, replace(recipe, resources=Resources(gpus=1, workers=2)), 0)
    assert (on_gpus.trainer, on_gpus.worker) == (PROCESS + 24 * weights, PROCESS + 4 * weights)


def test_actors_beside_the_trainer_take_their_own(arm, grown):
    alone = memory(grown, arm("opd"), 0)
    apart = Resources(rollout=Workers(actors=2), teacher=Workers(actors=1))
    found = memory(grown, arm("opd", resources=apart), 0)
    assert found.trainer < alone.trainer and min(found.rollout, found.teacher) > PROCESS
    drawn = arm("opd", rollout=replace(arm("opd").rollout, source=Teacher()), resources=apart)
    assert memory(grown, drawn, 0).rollout > 0


def test_nothing_is_asked_for_a_model_that_is_not_known_yet(arm, store, tmp_path):
    assert memory(store, arm("rlvr"), 0) == Memory()
    assert memory(store, arm("rlvr", start=Weights(ref=str(tmp_path))), 0) == Memory()
    assert memory(store, arm("rlvr", start=Weights(ref="models/none")), 0) == Memory()
    (tmp_path / "config.json").write_text("{}")
    assert memory(store, arm("rlvr", start=Weights(ref=str(tmp_path))), 0) == Memory()
    assert memory(store, arm("rlvr", start=FinalOf(recipe="none")), 0) == Memory()


@pytest.fixture
def nodes(monkeypatch):
    """nodes(...): the resources of the nodes that are there."""
    import ray

    def put(*resources):
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": each} for each in resources])

    return put


def test_memory_that_the_cluster_does_not_have_is_named_before_any_wait(nodes):
    nodes({"CPU": 4.0, "memory": 8.0 * GB}, {"CPU": 4.0, "memory": 6.0 * GB})
    apart = Resources(rollout=Workers(actors=2))
    require(apart, Memory(trainer=8 * GB, rollout=3 * GB))
    with pytest.raises(ValueError) as caught:
        require(apart, Memory(trainer=8 * GB, rollout=4 * GB))
    assert str(caught.value) == (
        "the run needs 16.0 GB of memory (trainer 8.0 GB, rollout 2 x 4.0 GB) and the cluster has 14.0 GB; set "
        "resources.checkpoint_activations, give the arm a new name with a smaller precision.micro_batch, or join a "
        "bigger cluster with RAY_ADDRESS"
    )
    with pytest.raises(
        ValueError, match=r"^one process of the run needs 9\.0 GB of memory .* largest node has 8\.0 GB;"
    ):
        require(Resources(), Memory(trainer=9 * GB))
    with pytest.raises(ValueError, match="needs 9"), reserve(Resources(), Memory(trainer=9 * GB)):
        pytest.fail("no room")


def test_a_cluster_that_has_yet_to_grow_refuses_nothing(nodes):
    nodes({"CPU": 0.0, "memory": 1.0 * GB})
    require(Resources(), Memory(trainer=9 * GB))
    assert free_memory.largest_node_memory() == float("inf")
    nodes({"CPU": 0.0, "memory": 99.0 * GB}, {"CPU": 2.0, "memory": 3.0 * GB})
    assert free_memory.largest_node_memory() == 3 * GB


def test_a_run_that_was_short_of_memory_gets_as_much_more_as_there_is(nodes):
    nodes({"CPU": 4.0, "memory": 8.0 * GB})
    sizes = [enlarge_memory(Resources(), Memory(trainer=2 * GB), times).trainer // GB for times in (1, 2, 4, 8)]
    assert sizes == [2, 4, 8, 8]
    assert enlarge_memory(Resources(), Memory(trainer=9 * GB), 4) == Memory(trainer=9 * GB), "which is then refused"


def test_a_trainer_that_is_short_of_memory_again_and_again_ends_in_one_line(arm, store, monkeypatch, caplog):
    from ray.exceptions import OutOfMemoryError

    asked, freed = [], []

    @contextmanager
    def reserved(resources, memory, *, beat):
        asked.append(memory.trainer)
        yield Placement(Spot())

    @contextmanager
    def started(kind, options):
        yield SimpleNamespace(begin=SimpleNamespace(remote=lambda *given: "begun"))

    def killed(reference, beat):
        assert reference == "begun"
        raise OutOfMemoryError("Memory on the node (IP: x) was 22.40GB used / 23.54GB limit (0.95)\nand much more")

    for name, fake in (("reserve", reserved), ("actor", started), ("PAUSE", 0.0)):
        monkeypatch.setattr(training, name, fake)
    monkeypatch.setattr(group, "wait_for", killed)
    monkeypatch.setattr(training, "enlarge_memory", lambda resources, memory, times: memory.times(times))
    monkeypatch.setattr(training, "end_idle_actors", lambda: freed.append(1))
    with pytest.raises(WorkerFailed) as caught:
        training.train(store, arm("pre"), 0)
    message = str(caught.value)
    assert message == (
        "mini.pre seed 0: its trainer died 4 times near step 0 (killed by Ray's memory monitor with 22.40GB used / "
        "23.54GB); give it more memory and start it again: it goes on; with a smaller batch it begins anew: opd "
        "study run mini --replace pre"
    )
    assert [size // asked[0] for size in asked] == [1, 2, 4, 8] and len(freed) == 3
    lines = [record.getMessage() for record in caplog.records if record.name == "opd"]
    assert len(lines) == 3 and all("\n" not in line for line in lines)
    assert lines[0].endswith("another goes on from the store with 2 times the memory reserved, or all there is")


def test_the_memory_of_a_run_is_held_while_it_lasts(workers):
    import ray

    free = ray.available_resources()["memory"]
    with reserve(Resources(), Memory(trainer=GB)) as place:
        assert place.trainer.options() == {}, "an actor that is there already can take it"
        assert ray.cluster_resources()["CPU"] == 2
        until_free(free - GB)
    until_free(free)
    with reserve(Resources(rollout=Workers(actors=1)), Memory(trainer=GB, rollout=GB)) as place:
        assert len(place.rollout) == 1
        until_free(free - 2 * GB)
    until_free(free)


def until_free(count):
    """Ray's own counts follow within a second or two."""
    import ray

    end = time.monotonic() + 30
    while (found := ray.available_resources().get("memory", 0)) != count:
        assert time.monotonic() < end, (found, count)
        time.sleep(0.05)
