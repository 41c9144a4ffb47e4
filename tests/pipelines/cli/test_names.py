"""What a name on the command line means, wherever it is given."""

import pytest

from pipelines.cli import names
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study

KNOWN = {"tiny.opd": [0, 1, 2], "tiny.sft": [0], "smollm.opd": [0], "external.mine": [0]}


@pytest.fixture
def store(here):
    return Store(default_uri())


@pytest.mark.parametrize(
    ("name", "seed", "run"),
    [
        ("tiny.opd", 1, ("tiny.opd", 1)),
        ("tiny.opd/2", None, ("tiny.opd", 2)),
        ("tiny.opd/seed-2", 2, ("tiny.opd", 2)),
        ("sft", None, ("tiny.sft", 0)),
        ("mine", None, ("external.mine", 0)),
        ("external.mine", 0, ("external.mine", 0)),
    ],
)
def test_a_run_is_found_by_its_recipe_its_arm_or_its_import(store, name, seed, run):
    assert names.resolve_run(store, name, seed, KNOWN) == run


@pytest.mark.parametrize(
    ("name", "seed", "words"),
    [
        ("opd", None, "'opd' may be any of tiny.opd, smollm.opd; write which"),
        ("tiny.opd", None, "leaves no choice: it has seed 0, 1, 2; write tiny.opd/0"),
        ("tiny.opd/1", 2, "tiny.opd/1 names seed 1, and --seed 2"),
        ("tiny.sft", 4, "holds no run tiny.sft seed 4; it has seed 0"),
        ("tiny.odp", 0, "did you mean 'tiny.opd'?"),
        ("mien", 0, "did you mean 'external.mine'?"),
    ],
)
def test_what_is_no_run_is_refused_with_what_there_is(store, name, seed, words):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        names.resolve_run(store, name, seed, KNOWN)
    assert words in str(refused.value)


def test_a_run_without_a_seed_may_have_a_default(store):
    assert names.resolve_run(store, "tiny.opd", None, KNOWN, 0) == ("tiny.opd", 0)


def test_arms_of_a_study_go_by_both_names():
    tiny = find_study("tiny")
    assert names.resolve_arms(tiny, ["core"], ["opd", "tiny.sft-matched"]) == ["tiny.opd", "tiny.sft-matched"]
    with pytest.raises(ValueError, match="suite core of study tiny has no recipe 'opd-pg'"):
        names.resolve_arms(tiny, ["core"], ["opd-pg"])


def test_an_import_goes_by_both_names_in_every_command(measure, opd):
    measure()
    for name in ("mine", "external.mine"):
        for command in (("report", name), ("regime", name, "--reference", "smollm")):
            assert opd(*command)[::2] == (0, ""), command
        assert "names one model size" not in opd("monitor", name, "--against", name)[2]
    code, _, err = opd("report", "mien")
    assert code == 2 and "unknown study or import 'mien'" in err and "did you mean 'mine'?" in err


def test_a_study_of_a_file_is_left_to_the_catalog(refused):
    assert "nowhere.py cannot be read" in refused("study", "show", "./nowhere.py")


def test_the_command_alone_prints_what_there_is(opd):
    for command in ((), ("study",)):
        code, out, err = opd(*command)
        assert (code, err) == (0, "") and out == opd(*command, "--help")[1]
    code, out, err = opd("--version")
    assert (code, err) == (0, "") and out.split()[0] == "opd" and out.split()[1][0].isdigit()
