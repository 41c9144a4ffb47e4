"""Verdicts on planted runs: a copy, one between, one beyond, and every way of not being able to tell."""

from dataclasses import replace

import pytest

from pipelines.regimes.judging import CANNOT_TELL, agree_views
from pipelines.regimes.profile import read_profiles
from pipelines.runs.verdicts.judging import judge_regime

KINDS = {"sft": 0.0, "opd": 1.0, "rlvr": 2.0}


def matched(comparisons, view="master"):
    (found,) = [c for c in comparisons if c.budget == "norm" and c.run.view == view]
    return found


LABELS = {"sft": "SFT", "opd": "OPD", "rlvr": "RLVR"}


@pytest.mark.parametrize("arm", LABELS)
def test_a_copy_of_a_reference_is_told_and_its_distances_are_those_planted(judged, planted, arm):
    found = judged(planted(recipe="external.copy", kind=KINDS[arm]))
    assert agree_views(found) == f"{LABELS[arm]}-like"
    for view in ("bf16", "master"):
        comparison = matched(found, view)
        for other, kind in KINDS.items():
            expected = 5 * abs(kind - KINDS[arm])
            assert all(d == pytest.approx(expected, abs=1e-6) for d in comparison.distances[other].values())
            assert comparison.combined[other] == pytest.approx(expected, abs=1e-6)
        assert comparison.confusion == pytest.approx(1.5)
        assert comparison.reason == ""


def test_all_diagnostics_of_a_view_are_compared(judged, planted):
    found = judged(planted(recipe="external.copy", kind=1.0))
    shared = {"rotation", "nss", "stable_rank", "effective_rank", "hill", "sim16_25", "sim16_10"}
    assert set(matched(found, "master").beside.names) == shared
    assert set(matched(found, "bf16").beside.names) == shared | {"unchanged", "low_magnitude", "principal"}


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [(0.5, CANNOT_TELL), (0.6, CANNOT_TELL), (0.7, "OPD-like"), (1.4, CANNOT_TELL), (1.7, "RLVR-like")],
)
def test_a_run_between_two_references_needs_more_than_their_confusion(judged, planted, kind, verdict):
    found = judged(planted(recipe="external.between", kind=kind))
    assert agree_views(found) == verdict
    if verdict == CANNOT_TELL:
        assert "a reference run can be 1.5 from its own arm" in matched(found).reason


@pytest.mark.parametrize(("kind", "verdict"), [(2.9, "RLVR-like"), (3.1, CANNOT_TELL), (-1.1, CANNOT_TELL)])
def test_a_run_beyond_the_references_is_told_only_while_it_is_nearer_than_they_are_to_each_other(
    judged, planted, kind, verdict
):
    found = judged(planted(recipe="external.beyond", kind=kind))
    assert agree_views(found) == verdict
    assert ("only 5 from the next reference" in matched(found).reason) == (verdict == CANNOT_TELL)


def test_runs_are_compared_where_they_moved_equally_far_and_their_ends_beside(judged, planted):
    found = judged(planted(recipe="external.far", kind=2.0, rate=2e-4))
    comparison = matched(found)
    assert comparison.norm == pytest.approx(6.4e-3) and comparison.point.step == pytest.approx(32)
    assert comparison.combined["rlvr"] == pytest.approx(0, abs=1e-6)
    (end,) = [c for c in found if c.budget == "end" and c.run.view == "master"]
    # Twice as far as rlvr's ends: ln 2 over a spread of 0.02 in the two diagnostics that grow with the norm.
    assert end.distances["rlvr"]["rotation"] == pytest.approx(34.657, abs=0.01)
    # It ends where opd's runs end, which is all that the ends see.
    assert end.norm is None and end.verdict == "OPD-like" and agree_views(found) == "RLVR-like"


def test_a_shorter_run_is_compared_at_its_own_end(judged, planted):
    comparison = matched(judged(planted(recipe="external.short", kind=1.0), step=16))
    assert comparison.norm == pytest.approx(1.6e-3) and comparison.point.step == 16
    assert comparison.verdict == "OPD-like"


@pytest.mark.parametrize(("rate", "steps"), [(1e-6, (1, 2, 64)), (1.0, (1, 2))])
def test_a_norm_outside_the_references_has_no_budget(judged, planted, rate, steps):
    found = judged(planted(recipe="external.out", kind=1.0, rate=rate, steps=steps))
    assert agree_views(found) == CANNOT_TELL
    assert "references share those of 0.0004 to 0.0064: there is no budget" in matched(found).reason
    assert matched(found).combined == {} and matched(found).norm is None


def test_a_single_snapshot_inside_the_range_is_enough(judged, planted):
    assert agree_views(judged(planted(recipe="external.one", kind=1.0, rate=1e-3, steps=(4,)))) == "OPD-like"


def test_a_run_of_the_study_is_judged_by_the_other_seeds(judged, beside):
    by = {(run.recipe, run.seed): run for run in beside()}
    found = matched(judged(by["tiny.opd", 0]))
    assert found.combined["opd"] == pytest.approx(1.5)  # offset -1 against the mean of 0 and 1
    again = matched(judged(replace(by["tiny.opd", 0], recipe="external.same")))
    assert again.combined["opd"] == pytest.approx(1.0)  # against the mean of all three
    assert agree_views(judged(by["tiny.sft", 2])) == "SFT-like"


@pytest.mark.parametrize(("name", "seeds", "told"), [("external.x", 1, False), ("external.x", 2, True)])
def test_two_seeds_of_every_reference_are_needed(judged, planted, beside, name, seeds, told):
    found = judged(planted(recipe=name, kind=1.0), beside(seeds=seeds))
    assert (agree_views(found) == "OPD-like") == told
    if not told:
        assert "fewer than 2 measured seeds of sft, opd, rlvr" in matched(found).reason


def test_the_own_seed_does_not_count_among_them(judged, beside):
    run = beside(seeds=2)[0]
    found = matched(judged(run, beside(seeds=2)))
    assert found.verdict == CANNOT_TELL and "besides seed 0, which is the run's own" in found.reason


def test_references_that_confuse_each_other_tell_nothing(judged, planted, beside):
    found = matched(judged(planted(recipe="external.copy", kind=1.0), beside(noise=6.0)))
    assert any(trial.nearest != trial.arm for trial in found.trials)
    assert found.verdict == CANNOT_TELL and found.combined["opd"] == pytest.approx(0, abs=1e-6)


def test_every_reference_is_tried_without_its_seed(judged, planted):
    trials = matched(judged(planted(recipe="external.copy", kind=1.0))).trials
    assert {(trial.arm, trial.seed) for trial in trials} == {(arm, seed) for arm in LABELS for seed in range(3)}
    assert all(trial.nearest == trial.arm for trial in trials)
    assert sorted({round(trial.own, 6) for trial in trials}) == [0.0, 1.5]


def test_other_shapes_leave_out_what_depends_on_them_and_no_more(judged, planted):
    found = matched(judged(planted(recipe="external.big", kind=1.0, noise_rank=1024.0)))
    sized = {"rotation", "hill", "sim16_10", "sim16_25"}
    assert set(found.left_out) == sized and set(found.left_out.values()) == {
        "the references' matrices have other shapes"
    }
    assert found.verdict == "OPD-like" and set(found.beside.names) == {"nss", "stable_rank", "effective_rank"}


def test_too_few_diagnostics_in_common_are_said(planted, beside, plant):
    run = planted(recipe="external.big", kind=1.0, noise_rank=1024.0)
    runs = [*beside(), run]
    tables = plant(runs)
    del tables["nulls"]  # which the effective rank needs
    found = read_profiles(tables, [(one.recipe, one.seed) for one in runs])
    comparison = matched(judge_regime(found, run.recipe, 0, "tiny"))
    assert comparison.verdict == CANNOT_TELL and comparison.reason.startswith("only 2 diagnostics")


def test_views_that_disagree_are_no_verdict(judged, planted):
    found = judged(planted(recipe="external.torn", kind=1.0, turn=1.0))
    assert {c.run.view: c.verdict for c in found if c.budget == "norm"} == {"bf16": "RLVR-like", "master": "OPD-like"}
    assert agree_views(found) == CANNOT_TELL


def test_a_run_that_stores_bf16_is_told_by_that_view(judged, planted):
    assert agree_views(judged(planted(recipe="external.bf16", kind=2.0, views=("bf16",)))) == "RLVR-like"


def test_equal_seeds_have_the_numbers_own_error_as_their_spread(judged, planted, beside):
    found = matched(judged(planted(recipe="external.copy", kind=1.0), beside(noise=0.0)))
    assert found.verdict == "OPD-like"
    assert found.beside.spread["hill"] == pytest.approx(1e-9 / 1.5, rel=0.2)
    wide = matched(judged(planted(recipe="external.copy", kind=1.0), beside(noise=0.0)), "bf16")
    assert wide.beside.spread["unchanged"] == pytest.approx(1 / 2000)  # one weight of all
