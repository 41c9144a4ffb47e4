"""What is lacking for a run is said in one line, and nothing heavy is loaded where nothing is needed."""

import subprocess
import sys
from dataclasses import replace

import pytest

from opd_ops.recipe import Resources, Workers
from pipelines.runs.resources import needs
from pipelines.studies import qwen3, smollm, tiny

ARMS = qwen3.study().arms()


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty working directory and hub cache, without a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def lacking(recipes):
    with pytest.raises(ValueError) as refused:
        needs.require(recipes)
    return str(refused.value)


def test_the_gpus_of_a_run_are_those_of_all_its_actors():
    where = Resources(gpus=2, rollout=Workers(actors=3, gpus=0.5), teacher=Workers(actors=2, gpus=4))
    assert needs.declared(replace(tiny.opd(), resources=where)) == 2 + 1.5 + 8
    assert needs.declared(tiny.opd()) == 0


def test_everything_that_is_lacking_is_named_in_one_line(bare, monkeypatch):
    monkeypatch.setattr(needs, "present", lambda: 1.0)
    said = lacking(ARMS)
    assert "\n" not in said
    most = max(map(needs.declared, ARMS))
    assert said.startswith(f"qwen3-8b cannot run here: {most:g} GPUs are needed and 1 found; ")
    assert "no weights Qwen/Qwen3-8B-Base, Qwen/Qwen3-32B (neither a folder nor in the hub's cache)" in said
    for name in ("sft", "train", "held-out"):
        assert said.count(f"data/qwen3-8b/{name}.jsonl") == 1
    assert said.endswith("`opd study show qwen3-8b` says what it takes")


def test_what_is_there_is_not_named(bare, monkeypatch):
    monkeypatch.setattr(needs, "present", lambda: 64.0)
    for folder in ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-32B", "data/qwen3-8b"):
        (bare / folder).mkdir(parents=True)
    for name in ("sft", "train", "held-out"):
        (bare / f"data/qwen3-8b/{name}.jsonl").touch()
    needs.require(ARMS)
    large = [replace(arm, resources=replace(arm.resources, gpus=2, workers=1)) for arm in ARMS]
    assert lacking(large) == (
        "qwen3-8b cannot run here: a trainer's process works on one GPU, and resources.gpus is more: set gpus=1 and "
        "workers; `opd study show qwen3-8b` says what it takes"
    )
    assert needs.declared(ARMS[0]) == 3, "two workers, and an actor that draws"


def test_weights_in_the_hubs_cache_are_there(bare):
    assert not needs._is_available("Qwen/Qwen3-32B")
    snapshot = bare / "hub/models--Qwen--Qwen3-32B/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = bare / "hub/models--Qwen--Qwen3-32B/refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    assert needs._is_available("Qwen/Qwen3-32B")
    assert not needs._is_available("Qwen/Qwen3-8B-Base")


def test_studies_without_gpus_need_nothing_and_load_nothing():
    needs.require([*tiny.study().models, *tiny.study().every_arm(), *smollm.study().every_arm()])
    code = (
        "import sys; from pipelines.runs.resources import needs; from pipelines.studies import tiny; "
        "needs.require(tiny.study().every_arm()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "ray"} & set(loaded)


def test_gpus_are_counted_on_this_machine_without_a_cluster(bare, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert needs.present() == 3.0
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert needs.present() == 3.0
