"""`opd regime`: a table, a sentence, and bad names in one line."""

import pytest
from tests.pipelines.regimes.conftest import Planted, references, tables

from pipelines import lake
from pipelines.store.objects import Store, default_uri


@pytest.fixture
def filled(here):
    store = Store(default_uri())
    runs = [*references(), Planted(recipe="external.mine", kind=1.0)]
    for name, frame in tables(runs).items():
        for (recipe, seed), part in frame.collect().partition_by("recipe", "seed", as_dict=True).items():
            lake.write(store, name, part, recipe=recipe, seed=seed)
    return store


def test_a_run_of_a_study_is_judged_by_its_own_references(filled, opd):
    code, out, err = opd("regime", "tiny.rlvr", "--seed", 2)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("tiny.rlvr seed 2 at step 64 is RLVR-like.")
    assert "root mean square" in out and "9 of 9 right" in out
    assert set(lake.scan("regime").collect()["regime"]) == {"RLVR-like"}


@pytest.mark.parametrize("name", ["external.mine", "mine"])
def test_an_import_goes_by_both_names_and_takes_a_step(filled, opd, name):
    code, out, _ = opd("regime", name, "--step", 32, "--reference", "tiny")
    assert code == 0 and "external.mine seed 0 at step 32 is OPD-like." in out


def test_a_study_without_seeds_cannot_tell(filled, opd):
    code, out, _ = opd("regime", "mine", "--reference", "smollm")
    assert code == 0 and "cannot tell" in out and "study smollm has fewer than 2 measured seeds" in out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("regime", ["NAME"]),
        ("regime tiny.opq", ["'tiny.opq'", "it holds: external.mine, tiny.opd, tiny.rlvr, tiny.sft"]),
        ("regime tiny.opd --seed 7", ["tiny.opd is not measured for seed 7", "0, 1, 2"]),
        ("regime tiny.opd --step 3", ["no measured step 3", "1, 2, 4, 8, 16, 32, 64"]),
        ("regime tiny.opd --reference tyni", ["'tyni'", "known: tiny, smollm"]),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(filled, refused, command, words):
    err = refused(*command.split())
    for word in words:
        assert word in err


def test_an_empty_store_says_so(refused, here):
    assert f"the store file://{here}/.opd/store does not exist; name one that does" in refused("regime", "tiny.opd")
    (here / ".opd/store").mkdir(parents=True)
    assert "holds no measured run 'tiny.opd'; it holds: none" in refused("regime", "tiny.opd")
