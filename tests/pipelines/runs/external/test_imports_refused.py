"""Imports that are refused, each in one line and before anything is written. What REFs may be: tests of the store."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement
from tests.pipelines.runs.conftest import CUTS, KEY, W0, Q, drifted, model, refused, save


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "..\n", "\u00e9", "a" * 101])
def test_names_are_plain(name, folders, store):
    refused(store, folders["base"], [(1, folders["one"])], repr(name), "a-z, 0-9", name=name)


@pytest.mark.parametrize("step", [0, -1, 1.5, True, "3", 2**63])
def test_steps_are_positive_integers(step, folders, store):
    refused(store, folders["base"], [(step, folders["one"])], f"step {step!r}", "whole number from 1")


def test_a_step_is_given_once(folders, store):
    given = [(7, folders["one"]), (7, folders["two"])]
    refused(store, folders["base"], given, "step 7 is given 2 times", "one checkpoint")


def test_snapshots_are_needed(folders, store):
    refused(store, folders["base"], [], "no snapshots", "--snapshot STEP=REF")


def test_cuts_roles_and_tables_are_checked(folders, store):
    given = folders["base"], [(1, folders["one"])]
    refused(store, *given, "k=(0,)", "from 1 up", measurement=Measurement(k=(0,)))
    refused(store, *given, "'rotations'", "known: update_support", measurement=replace(CUTS, tables=("rotations",)))
    refused(store, *given, "unknown role 'Q'", "known: q, k, v", roles=["q", "Q"])
    refused(store, *given, "no roles", "known: q, k, v", roles=[])
    refused(store, *given, "nothing to measure of roles up", "has roles q, k, v, o, embed, norm", roles=["up"])
    alone = replace(CUTS, tables=("hill",))
    refused(store, *given, "of roles norm in tables hill", "only update_support", roles=["norm"], measurement=alone)


def test_absent_checkpoints(folders, tmp_path, store):
    one, gone = folders["one"], f"{tmp_path}/gone"
    refused(store, gone, [(1, one)], f"base: {gone} does not exist", "name a Hugging Face folder")
    refused(store, folders["base"], [(3, gone)], f"snapshot 3: {gone} does not exist", "in the local hub cache")


@pytest.mark.parametrize(
    ("file", "what", "remedy"),
    [
        (None, "no other weights", "name a folder with model.safetensors"),
        ("pytorch_model.bin", "pickled", "convert them with save_pretrained"),
        ("adapter_model.safetensors", "an adapter", "merge it into its base"),
    ],
)
def test_folders_without_safetensors(file, what, remedy, folders, tmp_path, store):
    (tmp_path / "bad").mkdir()
    if file:
        (tmp_path / "bad" / file).write_bytes(b"x")
    refused(store, folders["base"], [(1, f"{tmp_path}/bad")], "snapshot 1", f"{tmp_path}/bad holds no", what, remedy)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files(keep, folders, store):
    file = Path(folders["one"], "model.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    refused(store, folders["base"], [(1, folders["one"])], "snapshot 1", str(file), "copy or convert")


def test_missing_shards(folders, tmp_path, store):
    sharded = save(tmp_path / "sharded", drifted(1), shards=2)
    Path(sharded, "model-1-of-2.safetensors").unlink()
    parts = ("snapshot 1", f"{sharded}/model.safetensors.index.json", "'model-1-of-2.safetensors'", "copy it there")
    refused(store, folders["base"], [(1, sharded)], *parts)


def test_other_shapes(folders, tmp_path, store):
    turned = save(tmp_path / "turned", model(**{Q: W0.T.contiguous()}))
    parts = (f"tensor {Q}.weight", "(32, 48)", "(48, 32)", "snapshot 9", turned, folders["base"], "trained from")
    refused(store, folders["base"], [(1, folders["one"]), (9, turned)], *parts)


def test_other_tokenizers(folders, tmp_path, store):
    tokens = lambda text: {token: i for i, token in enumerate(text)}
    base = save(tmp_path / "b", model(), vocabulary=tokens("abcd"))
    longer = save(tmp_path / "l", model(), vocabulary=tokens("abcde"))
    swapped = save(tmp_path / "s", model(), vocabulary=tokens("acbd"))
    assert plan_import(store, base, [(1, longer), (2, folders["one"])], CUTS, "x").steps == (1, 2)
    parts = ("token 'c' has id 2", "and id 1", base, swapped, "snapshot 2", "trained from")
    refused(store, base, [(1, longer), (2, swapped)], *parts)


def test_quantized_weights(tmp_path, store):
    eight = {name: w.to(torch.float8_e4m3fn) if "proj" in name else w for name, w in model().items()}
    base = save(tmp_path / "base", eight)
    refused(store, base, [(1, base)], f"{KEY}.weight", base, "quantized", "save the model in bf16")


def test_a_store_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").write_text("")
    imported = plan_import(Store(f"file://{tmp_path}/file/store"), folders["base"], [(1, folders["one"])], CUTS, "x")
    with pytest.raises(ValueError, match=rf"^store file://{tmp_path}/file/store cannot be written .*; set OPD_STORE"):
        measure_import(imported)
