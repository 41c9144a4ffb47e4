"""`opd export` and `opd import`."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.store.objects import Store, default_uri
from tests.pipelines.maintenance.planted import contents, furnish, plant
from tests.pipelines.maintenance.test_exporting import at, train

RUN = "runs/tiny.opd/seed-0"


@pytest.fixture
def store(here):
    return Store(default_uri())


@pytest.fixture
def elsewhere(tmp_path):
    return Store(f"file://{tmp_path}/elsewhere")


def test_a_step_becomes_a_folder_that_transformers_loads(opd, store, here):
    _, began = train(store)
    code, out, err = opd("export", "tiny.opd/0", 1, here / "model")
    assert (code, err) == (0, "")
    assert out == f"{RUN} step 1, master: {here}/model (no tokenizer: none is at hand)\n"
    state = AutoModelForCausalLM.from_pretrained(here / "model").state_dict()
    assert all(torch.equal(state[name], w) for name, w in at(began, 1).items())


def test_the_last_step_and_the_only_seed_need_no_number(opd, store, here):
    _, began = train(store)
    assert opd("export", "tiny.opd", "last", "model", "--dtype", "bf16")[0] == 0
    assert json.loads((here / "model/opd.json").read_text())["step"] == 2
    state = AutoModelForCausalLM.from_pretrained(here / "model").state_dict()
    assert all(torch.equal(state[name], w.to(torch.bfloat16)) for name, w in at(began, 2).items())


def test_a_run_goes_to_another_store_and_comes_back(opd, store, elsewhere):
    furnish(store)
    plant(store, seed=1, extras=False)
    of_run = {key: data for key, data in contents(store).items() if RUN in key or "tiny.opd/seed=0" in key}
    code, out, err = opd("export", "tiny.opd", "--seed", 0, "--to", elsewhere.uri)
    assert (code, err) == (0, "") and contents(elsewhere) == of_run
    assert out.startswith(f"tiny.opd seed 0: {len(of_run)} objects, ") and out.endswith("; 0 were there\n")
    before = contents(store)
    store.remove(RUN)
    code, out, err = opd("import", elsewhere.uri, "tiny.opd")
    assert (code, err) == (0, "") and contents(store) == before
    assert opd("verify", "--deep")[0] == opd("verify", elsewhere.uri)[0] == 0
    code, out, _ = opd("import", elsewhere.uri, "tiny.opd/0")
    assert code == 0 and out.startswith("tiny.opd seed 0: 0 objects, 0 B, copied")


def test_an_import_repairs_what_was_damaged(opd, store, elsewhere):
    furnish(store)
    opd("export", "tiny.opd", "--to", elsewhere.uri)
    before, key = contents(store), f"{RUN}/step-00000003/master.safetensors"
    store.write(key, before[key][:-9])
    assert opd("verify")[0] == 5
    assert opd("import", elsewhere.uri, "tiny.opd")[1].startswith("tiny.opd seed 0: 1 objects, ")
    assert contents(store) == before and opd("verify")[0] == 0


def test_weights_alone_and_what_is_left_are_told(opd, store, elsewhere):
    furnish(store)
    store.write(f"{RUN}/notes.txt", b"")
    code, out, _ = opd("export", "tiny.opd", "--to", elsewhere.uri, "--weights-only")
    assert code == 0 and out.splitlines()[0] == f"left behind: {RUN}/notes.txt" and len(out.splitlines()) == 2
    assert not elsewhere.list("lake") and elsewhere.exists(f"{RUN}/end.json")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("tiny.opd", "give STEP and DIR for a Hugging Face folder, or --to URI"),
        ("tiny.opd/0 1", "give STEP and DIR for a Hugging Face folder, or --to URI"),
        ("tiny.opd/0 1 a --to b", "--to copies a whole run; leave STEP, DIR and --dtype out"),
        ("tiny.opd/0 --dtype bf16 --to b", "--to copies a whole run"),
        ("tiny.opd/0 1 a --weights-only", "--weights-only goes with --to URI"),
        ("tiny.opd/0 one a", "STEP 'one' is no step; write a number, or last"),
        ("tiny.opd/0 -1 a", "STEP '-1' is no step"),
        ("tiny.opd/0 5 a", "has no snapshot of step 5; it has those of steps 0, 1, 3, 7"),
        ("tiny.opd/0 1 .", "is there and no empty folder"),
        ("tiny.opd/0 --seed 1 --to b", "tiny.opd/0 names seed 0, and --seed 1"),
        ("tiny.opd/5 --to b", "holds no run tiny.opd seed 5; it has seed 0, 1"),
        ("tiny.opd --to b", "tiny.opd names no seed, and file://"),
        ("tiny.none 1 a", "holds no run 'tiny.none'; it has: tiny.opd, tiny.rlvr"),
        ("../tiny/0 --to b", "'..' is no name"),
    ],
)
def test_bad_input_is_one_line(refused, store, arguments, line):
    furnish(store)
    plant(store, seed=1, extras=False)
    assert line in refused("export", *arguments.split())


def test_another_run_of_the_name_is_one_line(refused, store, elsewhere):
    furnish(store)
    plant(elsewhere, extras=False, start={"identity": {"arm": "x"}, "fingerprint": "", "inputs": {}, "provenance": {}})
    told = refused("import", elsewhere.uri, "tiny.opd")
    assert "holds another run of that name (identity.arm:" in told and told.count("\n") == 1
    assert "holds nothing" in refused("import", "memory://nothing-here", "tiny.opd")
