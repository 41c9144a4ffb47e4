"""What a run asks of a cluster: all of it at once, or one line about what is missing."""

import pickle
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from opd_ops.recipe import Resources, Workers
from pipelines.runs.resources import placement
from pipelines.runs.resources.placement import CPU, Placement, Spot, require, reserve
from tests.pipelines.runs.conftest import gone


class Odd(Exception):
    pass


def groups():
    """Placement groups that exist now."""
    from ray.util.placement_group import placement_group_table

    return [group for group in placement_group_table().values() if group["state"] != "REMOVED"]


def nodes(monkeypatch, *resources):
    import ray

    alive = [{"Alive": True, "Resources": each} for each in resources]
    dead = {"Alive": False, "Resources": {"GPU": 8.0, "CPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])


def refused(resources, *parts):
    with pytest.raises(ValueError) as caught:
        require(resources)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_run_without_actors_asks_the_cluster_for_nothing(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: pytest.fail("nothing is asked for"))
    with reserve(Resources()) as place:
        assert place == Placement(Spot(0.0))
        assert place.trainer.options() == {}, "no CPU is held"


def test_a_trainer_alone_on_a_gpu_needs_no_group(monkeypatch):
    nodes(monkeypatch, {"CPU": 4.0, "GPU": 1.0})
    with reserve(Resources(gpus=0.5)) as place:
        assert place == Placement(Spot(0.5))
        assert place.trainer.options() == {"num_gpus": 0.5}


def test_every_process_gets_its_bundle_and_loses_it_with_the_block(workers):
    import ray

    class Where:
        def bundle(self):
            found = ray.get_runtime_context().get_assigned_resources()
            return ray.util.get_current_placement_group().id.hex(), found

    before = ray.cluster_resources()["CPU"]
    resources = Resources(rollout=Workers(actors=2), teacher=Workers(actors=1))
    with reserve(resources) as place:
        spots = [place.trainer, *place.rollout, *place.teacher]
        assert [len(place.rollout), len(place.teacher)] == [2, 1]
        assert sorted(spot.bundle for spot in spots) == [0, 1, 2, 3]
        assert len(groups()) == 1 and groups()[0]["strategy"] == "PACK"
        actors: list[Any] = [ray.remote(**spot.options())(Where).remote() for spot in pickle.loads(pickle.dumps(spots))]
        found = ray.get([actor.bundle.remote() for actor in actors])
        assert {group for group, _ in found} == {place.trainer.group.id.hex()}
        assert all(sum(each.values()) < 1 for _, each in found), "fractions of a CPU"
    assert groups() == []
    assert ray.cluster_resources()["CPU"] == before
    gone(actors[0].bundle)


def test_the_group_goes_when_the_block_fails(workers):
    with pytest.raises(Odd), reserve(Resources(rollout=Workers(actors=1))):
        assert len(groups()) == 1
        raise Odd
    assert groups() == []


def test_bundles_hold_the_fractions_of_gpus_that_were_asked_for(monkeypatch):
    import ray  # noqa: F401

    module = sys.modules["ray.util.placement_group"]  # in ray.util the function hides it
    asked = []

    def group(bundles, strategy):
        asked.append((bundles, strategy))
        return SimpleNamespace(wait=lambda seconds: True)

    monkeypatch.setattr(module, "placement_group", group)
    monkeypatch.setattr(module, "remove_placement_group", lambda group: asked.append("removed"))
    nodes(monkeypatch, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0})
    resources = Resources(gpus=1, rollout=Workers(actors=2, gpus=0.25), teacher=Workers(actors=1))
    with reserve(resources) as place:
        assert [spot.gpus for spot in (place.trainer, *place.rollout, *place.teacher)] == [1, 0.25, 0.25, 0]
    quarter = {"CPU": CPU, "GPU": 0.25}
    assert asked == [([{"CPU": CPU, "GPU": 1}, quarter, quarter, {"CPU": CPU}], "PACK"), "removed"]


def test_workers_stand_beside_the_first_with_a_whole_cpu_each(workers):
    import ray

    with reserve(Resources(workers=2)) as place:
        (second,) = place.workers
        assert not place.rollout and not place.teacher
        for spot in (place.trainer, second):
            assert spot.options()["num_cpus"] == 1 and spot.options()["num_gpus"] == 0
        bundles = ray.util.placement_group_table(place.trainer.group)["bundles"]
        assert list(bundles.values()) == [{"CPU": 1.0}] * 2


def test_workers_that_the_cluster_has_no_room_for_are_named(workers, monkeypatch):
    refused(
        Resources(workers=2, rollout=Workers(actors=1)),
        "needs 2.01 CPUs (2 x 1 + 1 x 0.01) and the cluster has 2 CPUs; lower Resources.workers or join",
    )
    refused(Resources(gpus=1, workers=3), "needs 3 GPUs (trainer 3 x 1) and the cluster has 0 GPUs; lower Resources.w")
    nodes(monkeypatch, {"GPU": 8.0, "CPU": 1.0})
    require(Resources(gpus=1, workers=8))  # whose computing is done elsewhere than on that CPU


def test_gpus_that_the_cluster_does_not_have_are_named_before_any_wait(workers):
    begun = time.monotonic()
    message = refused(Resources(gpus=1, rollout=Workers(actors=2, gpus=0.5)))
    assert message == (
        "the run needs 2 GPUs (trainer 1, rollout 2 x 0.5) and the cluster has 0 GPUs; "
        "lower Resources.gpus or join a bigger cluster with RAY_ADDRESS"
    )
    refused(Resources(gpus=1), "needs 1 GPUs (trainer 1)")
    refused(Resources(teacher=Workers(actors=3, gpus=2)), "6 GPUs (trainer 0, teacher 3 x 2)")
    with pytest.raises(ValueError, match="needs 2 GPUs"), reserve(Resources(gpus=2)):
        pytest.fail("no room")
    assert time.monotonic() - begun < 5
    assert groups() == []


def test_a_process_is_never_spread_over_nodes(monkeypatch):
    nodes(monkeypatch, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0})
    require(Resources(gpus=1, rollout=Workers(actors=2, gpus=0.5)))
    refused(Resources(gpus=2), "one process of the run needs 2 GPUs", "the largest node has 1")


def test_actors_need_a_node_with_cpus(monkeypatch):
    nodes(monkeypatch, {"CPU": 0.0})
    refused(Resources(rollout=Workers(actors=1)), "needs 0.02 CPUs (2 x 0.01) and the cluster has 0 CPUs")


def test_a_cluster_whose_nodes_are_all_dead_is_said_to_have_nothing(monkeypatch):
    nodes(monkeypatch)
    with pytest.raises(ValueError, match="and the cluster has 0 CPUs"):
        require(Resources(rollout=Workers(actors=1)))


def test_dead_nodes_do_not_count(monkeypatch):
    nodes(monkeypatch, {"CPU": 1.0})
    refused(Resources(gpus=1), "the cluster has 0 GPUs")


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(gpus=1.5), "trainer asks for 1.5 GPUs"),
        (Resources(gpus=-1), "trainer asks for -1 GPUs"),
        (Resources(rollout=Workers(actors=1, gpus=2.5)), "rollout asks for 2.5 GPUs"),
        (Resources(teacher=Workers(actors=-1)), "Resources.teacher.actors is not negative, got -1"),
    ],
)
def test_what_no_cluster_could_give_is_refused(resources, message):
    refused(resources, message)


def test_waiting_for_what_others_hold_beats_and_says_what_is_taken(workers, monkeypatch):
    import ray

    monkeypatch.setattr(placement, "BEAT", 0.2)
    other = ray.util.placement_group([{"CPU": 2.0}], strategy="PACK")
    assert other.wait(30)
    beats = []
    try:
        resources = Resources(rollout=Workers(actors=1))
        with pytest.raises(TimeoutError) as caught, reserve(resources, wait=1, beat=lambda: beats.append(1)):
            pytest.fail("the CPUs are taken")
        message = str(caught.value)
        assert "\n" not in message and "0 of 2 CPUs free" in message and "within 1 s" in message
        assert beats

        def stop():
            raise Odd

        with pytest.raises(Odd), reserve(resources, beat=stop):
            pytest.fail("the CPUs are taken")
        assert len(groups()) == 1, "only the other's"
    finally:
        ray.util.remove_placement_group(other)
    with reserve(resources, wait=60) as place:
        assert len(place.rollout) == 1
