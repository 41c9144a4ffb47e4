"""`opd regime`: a table, a sentence, and bad names in one line."""

import pytest

from pipelines import lake
from pipelines.store.objects import Store, default_uri
from tests.pipelines.regimes.conftest import Planted, references, tables


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
    verdict, reason, *block = out.splitlines()
    assert verdict == "tiny.rlvr seed 2 at step 64: RLVR-like"
    assert reason.startswith("reason: ") and " from RLVR, " in reason and "at most" in reason
    assert block[-2].startswith("root mean square") and block[-1] == "references: the runs of study tiny"
    assert set(lake.scan("regime").collect()["regime"]) == {"RLVR-like"}


@pytest.mark.parametrize("name", ["external.mine", "mine"])
def test_an_import_goes_by_both_names_and_takes_a_step(filled, opd, name):
    code, out, _ = opd("regime", name, "--step", 32, "--reference", "tiny")
    assert code == 0 and out.startswith("external.mine seed 0 at step 32: OPD-like\n")


def test_a_study_without_seeds_cannot_tell(filled, opd):
    code, out, _ = opd("regime", "mine", "--reference", "smollm")
    verdict, reason = out.splitlines()
    assert code == 0 and verdict == "external.mine seed 0 at step 64: cannot tell"
    assert "study smollm has fewer than 2 measured seeds of sft, opd, rlvr that moved" in reason
    assert reason.endswith("opd study run smollm")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("regime", ["NAME"]),
        ("regime tiny.opq", ["'tiny.opq'", "it has: external.mine, tiny.opd, tiny.rlvr, tiny.sft"]),
        ("regime tiny.opd --seed 7", ["holds no run tiny.opd seed 7", "it has seed 0, 1, 2"]),
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
    assert "holds no run 'tiny.opd'; it has: none" in refused("regime", "tiny.opd")
