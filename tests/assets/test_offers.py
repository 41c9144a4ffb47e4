"""Which partitions there are: what was asked for or begun, as a study declares it, and nothing that cannot run here."""

from dataclasses import replace

import dagster as dg
import pytest

from assets import offers
from assets.definitions import defs
from assets.partitions import STUDIES, anchor_key, run_key
from pipelines.runs.external import watchlist
from pipelines.store.trajectory import Trajectory

TINY, QWEN = STUDIES["tiny"], STUDIES["qwen3-8b"]


@pytest.fixture
def fresh():
    """An instance without any partition."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def mine(monkeypatch):
    """A study of one's own: two seeds, no teacher, no anchor, and none of the paper's arms."""
    arm = lambda name: replace(TINY.arms()[0], study="mine", arm=name)
    suites = {"core": (arm("distill"), arm("grpo")), "more": (arm("extra"),)}
    study = replace(
        TINY, name="mine", models=(), suites=suites, helpers=(), seeds=(0, 1), anchor=None, nightly=(), story=None
    )
    monkeypatch.setitem(STUDIES, "mine", study)
    return study


def begin(store, recipe, seed):
    """A run as it is registered, without a step."""
    Trajectory(store, recipe.name, seed).register({"identity": {}, "fingerprint": "", "inputs": {}, "model": {}})


def runs(study, suites=("core",)):
    return {run_key(recipe.name, seed) for suite in suites for recipe in study.arms(suite) for seed in study.seeds}


def test_over_an_empty_store_the_core_of_what_can_run_here_is_offered_and_no_study_for_gpus(store):
    found = offers.of_store(store)
    assert set(found["runs"]) == runs(TINY) and found["studies"] == ["tiny"]
    assert set(found["anchors"]) == {anchor_key("tiny", seed) for seed in TINY.seeds}
    assert found["teachers"] == found["exhibits"] == ["tiny"]


def test_a_study_of_ones_own_is_offered_beside_what_was_begun_with_its_own_seeds_and_no_more(store, mine):
    begin(store, TINY.arms()[0], 0)
    found = offers.of_store(store)
    assert set(found["runs"]) == runs(TINY) | runs(mine)
    assert run_key("mine.grpo", 1) in found["runs"] and run_key("mine.grpo", 2) not in found["runs"]
    assert found["studies"] == ["tiny", "mine"]
    assert found["teachers"] == found["exhibits"] == ["tiny"]
    assert set(found["anchors"]) == {anchor_key("tiny", seed) for seed in TINY.seeds}


def test_once_a_study_of_ones_own_is_begun_the_built_in_ones_are_no_longer_offered(store, mine):
    begin(store, mine.arms()[0], 1)
    found = offers.of_store(store)
    assert found["studies"] == ["mine"] and set(found["runs"]) == runs(mine)


@pytest.mark.parametrize("suite", ["objectives", "scaling"])
def test_a_suite_is_offered_once_a_run_of_it_is_begun(suite, store):
    before = set(offers.of_store(store)["runs"])
    begin(store, TINY.arms(suite)[0], 0)
    assert set(offers.of_store(store)["runs"]) == runs(TINY, (suite,)) != before


def test_a_study_for_gpus_is_offered_once_it_is_begun(store):
    begin(store, QWEN.arms()[0], 0)
    assert offers.of_store(store)["studies"] == ["qwen3-8b"]


def test_a_study_whose_weights_or_data_are_absent_is_not_offered(store, mine):
    assert not offers.can_run(store, STUDIES["smollm"])
    store.write("models/smollm2-135m-instruct/config.json", b"{}")
    assert offers.can_run(store, STUDIES["smollm"]) and offers.can_run(store, mine)
    data = {"path": "/nowhere/mine.jsonl"}
    arms = tuple(replace(arm, task=replace(arm.task, name="jsonl", options=data)) for arm in mine.arms())
    assert not offers.can_run(store, replace(mine, suites={"core": arms}))


def test_imports_are_offered_and_to_the_monitor_those_that_are_watched(store):
    for name in ("one", "two"):
        store.write(f"runs/external.{name}/seed-0/import-1.json", b"{}")
    watchlist.add_watch(store, "two", "s3://bucket/run", ("tiny.opd",))
    found = offers.of_store(store)
    assert (found["external"], found["watched"]) == (["one", "two"], ["two"])


def test_what_is_offered_already_is_not_added_again(fresh):
    asked = offers.of_runs(TINY, TINY.arms(), TINY.seeds)
    assert offers.offer(fresh, asked) == 12 + 3 + 3
    assert offers.offer(fresh, asked) == 0
    assert fresh.get_dynamic_partitions("runs") == asked["runs"], "core in the order of its arms"


def test_the_job_offer_adds_a_suite_and_refuses_an_unknown_one_in_one_line(fresh):
    def ask(**config):
        run_config = {
            "ops": {"offer_suites": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        }
        job = defs.resolve_job_def("offer")
        return job.execute_in_process(instance=fresh, run_config=run_config, raise_on_error=False)

    assert ask(study="tiny", suites=["objectives"]).success
    assert set(fresh.get_dynamic_partitions("runs")) == runs(TINY, ("objectives",))
    for config, told in (
        ({"study": "none"}, "there is no study 'none'; known: tiny"),
        ({"study": "tiny", "suites": ["none"]}, "study tiny has no suite 'none'; it has: core"),
    ):
        (failed,) = [event for event in ask(**config).all_events if event.is_step_failure]
        assert failed.step_failure_data.user_failure_data.description.startswith(told)
