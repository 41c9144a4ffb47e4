"""A restored step is the snapshot bit for bit, and transformers loads it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from opd_ops import models
from opd_ops.recipe import Architecture
from pipelines.maintenance.exporting import TOKENIZER, export
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.maintenance.planted import facts

SIZES = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}


def train(store, family="qwen3", tied=True, name="tiny.opd", start=None):
    """Steps 0, 1 and 2 of a model of that family, the later two kept beside the first."""
    config = models.configuration(Architecture(family=family, **SIZES, **HEADS), pad=0, bos=1, eos=2)
    config.tie_word_embeddings = tied
    run, began = Trajectory(store, name, 0), models.initialise(config, 3)
    described = {"model": json.loads(config.to_json_string(use_diff=False))}
    run.register((start or facts(name, 0)) | described)
    for step in range(3):
        run.commit(step, at(began, step), step - 1 if step else None)
    return run, began


def at(began, step):
    generator = torch.Generator().manual_seed(5)
    return {n: w + 1e-4 * step * torch.randn(w.shape, generator=generator) for n, w in sorted(began.items())}


def loaded(folder, **how):
    both: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **how)
    model, report = both
    assert not any(report.values()), report
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_transformers_loads_any_step_bit_for_bit(files, tmp_path, family, tied):
    run, began = train(files, family, tied)
    assert run.manifest(2)["base"]["step"] == 0
    for step in (0, 2):
        folder = str(tmp_path / f"at-{step}")
        assert export(files, "tiny.opd", 0, step, folder) == ["config.json", "model.safetensors", "opd.json"]
        model = loaded(folder)
        wanted = at(began, step)
        assert {name for name, _ in model.named_parameters()} == wanted.keys()
        state = model.state_dict()
        assert ("lm_head.weight" in wanted) is not tied
        assert torch.equal(state["lm_head.weight"], wanted.get("lm_head.weight", wanted["model.embed_tokens.weight"]))
        for name, w in wanted.items():
            assert state[name].dtype == torch.float32 and torch.equal(state[name], w), name
        assert model.config.architectures == [type(model).__name__] and model.config.model_type == family
        assert serialise(models.state(model)) == serialise(wanted)


def test_the_view_that_is_served(files, tmp_path):
    _, began = train(files)
    export(files, "tiny.opd", 0, 2, str(tmp_path / "served"), "bf16")
    state = loaded(tmp_path / "served").state_dict()
    for name, w in at(began, 2).items():
        assert state[name].dtype == torch.bfloat16 and torch.equal(state[name], w.to(torch.bfloat16))
    assert AutoConfig.from_pretrained(tmp_path / "served").dtype == torch.bfloat16


def test_the_folder_says_what_it_is_of(files, tmp_path):
    run, _ = train(files)
    export(files, "tiny.opd", 0, 1, str(tmp_path / "a"))
    said = json.loads((tmp_path / "a/opd.json").read_text())
    assert said == {"run": run.prefix, "step": 1, "digest": run.digest(1), "dtype": "master"}


def test_the_tokenizer_of_the_weights_that_a_run_came_from_is_there(files, tmp_path):
    files.write("models/m/config.json", b"{}")
    for name in (*TOKENIZER[:3], "model.safetensors"):
        files.write(f"models/m/{name}", serialise({"w": torch.ones(1)}))
    train(files, name="tiny.sft", start=facts("tiny.sft", 0, kind="weights", ref="models/m"))
    Trajectory(files, "tiny.sft", 0).finish({"step": 2, "digest": "", "snapshots": [0, 1, 2]})
    train(files, start=facts("tiny.opd", 0, kind="final", recipe="tiny.sft", **{"seed": None}))
    names = export(files, "tiny.opd", 0, 2, str(tmp_path / "a"))
    assert names == sorted(["config.json", "model.safetensors", "opd.json", *TOKENIZER[:3]])
    assert (tmp_path / "a/tokenizer.json").read_bytes() == files.read("models/m/tokenizer.json")


def test_a_run_without_what_it_came_from_is_exported_without_a_tokenizer(files, tmp_path):
    for kind, more in (("weights", {"ref": "models/none"}), ("final", {"recipe": "tiny.none"} | {"seed": None})):
        train(files, name=f"tiny.{kind}", start=facts(f"tiny.{kind}", 0, kind=kind, **more))
        names = export(files, f"tiny.{kind}", 0, 0, str(tmp_path / kind))
        assert names == ["config.json", "model.safetensors", "opd.json"]


def test_an_empty_folder_is_taken_and_a_full_one_refused(files, tmp_path):
    train(files)
    (tmp_path / "empty").mkdir()
    export(files, "tiny.opd", 0, 0, str(tmp_path / "empty"))
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    before = {path.name: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    for name in ("empty", "file", "link"):
        with pytest.raises(
            ValueError, match=rf"{name} is there and no empty folder; name one that is absent or empty$"
        ):
            export(files, "tiny.opd", 0, 0, str(tmp_path / name))
    with pytest.raises(ValueError, match="is no local folder"):
        export(files, "tiny.opd", 0, 0, "s3://bucket/a")
    assert {path.name: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"step": 7}, "has no snapshot of step 7; it has those of steps 0, 1, 2"),
        ({"seed": 4}, "has no snapshot of step 0"),
        ({"dtype": "fp8"}, "dtype 'fp8' is not offered; use one of master, bf16"),
    ],
)
def test_what_is_not_there_is_one_line_and_leaves_nothing(files, tmp_path, given, line):
    train(files)
    call = {"recipe": "tiny.opd", "seed": 0, "step": 0, "folder": str(tmp_path / "a")} | given
    with pytest.raises(ValueError, match=re.escape(line)):
        export(files, **call)
    assert [path.name for path in tmp_path.iterdir()] == ["a store"]


def test_damaged_weights_are_not_exported(files, tmp_path):
    run, _ = train(files)
    key = f"{run.prefix}/step-00000000/master.safetensors"
    files.write(key, files.read(key)[:-1] + b"x")
    with pytest.raises(ValueError, match="holds other weights than were committed; see opd verify"):
        export(files, "tiny.opd", 0, 0, str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_an_export_that_is_stopped_leaves_no_folder(files, tmp_path, monkeypatch):
    train(files)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.rename", stop)
    with pytest.raises(KeyboardInterrupt):
        export(files, "tiny.opd", 0, 0, str(tmp_path / "a"))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["a store"]


def test_a_run_without_a_model_is_one_line(files, tmp_path):
    run = Trajectory(files, "tiny.opd", 0)
    run.register(facts("tiny.opd", 0) | {"model": {"model_type": "none"}})
    run.commit(0, {"w": torch.ones(1)}, None)
    with pytest.raises(ValueError, match=r"run\.json describes no causal language model \([^\n]*\)$"):
        export(files, "tiny.opd", 0, 0, str(tmp_path / "a"))
