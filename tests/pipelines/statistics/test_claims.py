"""How an interval becomes a verdict, and what a control says of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.paper.claims import CLAIMS
from pipelines.paper.suites import SUITES
from pipelines.statistics.claims import COMPARED, default_claims
from pipelines.statistics.stories import complete_story, story_of
from pipelines.studies.catalog import find_study
from pipelines.studies.claim import Control, Kind
from pipelines.studies.story import Arm, Story
from tests.pipelines.planted import STORY

CLAIM = STORY.claim_by_text["unchanged weights, bf16: SFT < OPD"]
ENDS = st.floats(-10, 10)
KINDS = ["less", "greater", "at_most", "near", "far", "differs"]
MATCHED = Control(words="", kind="matched", left="sft-matched", right="opd")
PLACEBO = replace(MATCHED, kind="placebo")


@pytest.mark.parametrize(
    ("kind", "low", "high", "holds"),
    [
        ("less", -2, -1, True),
        ("less", 1, 2, False),
        ("less", -1, 1, None),
        ("less", -1, 0, None),
        ("greater", 1, 2, True),
        ("greater", -2, -1, False),
        ("greater", -1, 1, None),
        ("at_most", -1, 0, True),
        ("at_most", 0.1, 1, False),
        ("at_most", -1, 1, None),
        ("near", -1.9, 1.9, True),
        ("near", -2.1, 1.9, None),
        ("near", 2.1, 3, False),
        ("near", -3, -2.1, False),
        ("far", -1.9, 1.9, False),
        ("far", -2.1, 1.9, None),
        ("far", 2.1, 3, True),
        ("far", -3, -2.1, True),
        ("differs", 0.1, 1, True),
        ("differs", -1, -0.1, True),
        ("differs", -1, 1, None),
        ("differs", 0, 0, None),
    ],
)
def test_the_side_of_the_interval_decides(kind: Kind, low, high, holds):
    # A band of 20 % of 10 is 2.
    assert replace(CLAIM, kind=kind, band=0.2).judge(low, high, 10) is holds


@pytest.mark.parametrize(
    ("kind", "low", "high", "holds"),
    [
        ("less", -3, -2.1, True),
        ("less", -3, -1.9, None),
        ("less", -1.9, -1, False),
        ("less", 1, 2, False),
        ("greater", 2.1, 3, True),
        ("greater", -1, 1.9, False),
        ("near", -1.9, 1.9, True),
        ("near", -1.9, 2.1, None),
        ("far", 2.1, 3, True),
    ],
)
def test_a_margin_is_in_the_metrics_own_unit(kind: Kind, low, high, holds):
    assert replace(CLAIM, kind=kind, margin=2.0).judge(low, high, 10) is holds


@given(ENDS, ENDS, st.floats(0, 3))
def test_greater_mirrors_less(one, other, margin):
    low, high = sorted((one, other))
    less, greater = (replace(CLAIM, kind=kind, margin=margin) for kind in ("less", "greater"))
    assert greater.judge(low, high, 1) is less.judge(-high, -low, 1)


@given(ENDS, ENDS, st.floats(0, 5), st.sampled_from(KINDS))
def test_a_wider_interval_never_turns_a_verdict_around(one, other, more, kind):
    low, high = sorted((one, other))
    claim = replace(CLAIM, kind=kind, band=0.2)
    narrow, wide = claim.judge(low, high, 10), claim.judge(low - more, high + more, 10)
    assert wide is None or wide is narrow


@pytest.mark.parametrize(
    ("control", "other", "says"),
    [
        (MATCHED, (-6.0, -4.5), "remains"),  # overlaps
        (MATCHED, (-9.0, -8.0), "remains"),  # is larger
        (MATCHED, (-2.0, -1.0), "shrinks"),
        (MATCHED, (-2.0, 1.0), "not seen"),
        (MATCHED, (-9.0, 1.0), "not seen"),  # wide enough for anything
        (MATCHED, (1.0, 2.0), "turns"),
        (PLACEBO, (-6.0, -4.5), "the same"),
        (PLACEBO, (-2.0, -1.0), "differs"),  # the same sign, and smaller
        (PLACEBO, (-6.0, 1.0), "differs"),  # overlaps, and contains 0
        (PLACEBO, (1.0, 2.0), "differs"),
    ],
)
def test_what_a_control_says_of_an_ordering_that_holds(control, other, says):
    assert CLAIM.read(control, (-5.0, -4.0), other, right=10.0) == says


@pytest.mark.parametrize(
    ("control", "other", "says"),
    [
        (PLACEBO, (-0.5, 0.5), "the same"),  # no overlap is needed: it stays in the band too
        (PLACEBO, (1.0, 3.0), "differs"),
        (MATCHED, (-0.5, 0.5), "remains"),
        (MATCHED, (3.0, 4.0), "turns"),
    ],
)
def test_what_a_control_says_of_a_band_that_holds(control, other, says):
    assert replace(CLAIM, kind="near", band=0.2).read(control, (0.6, 0.7), other, right=10.0) == says


@given(ENDS, ENDS, ENDS, ENDS, st.sampled_from(KINDS))
def test_a_placebo_shows_the_same_only_where_the_statement_is_true_of_it(a, b, c, d, kind):
    own, other = (min(a, b), max(a, b)), (min(c, d), max(c, d))
    claim = replace(CLAIM, kind=kind, band=0.2)
    if claim.read(PLACEBO, own, other, 10.0) == "the same":
        assert claim.judge(*other, 10.0) is True


def test_claims_name_arms_that_there_are_and_the_suite_they_need():
    suites = {suite.name: set(suite.arms) for suite in SUITES} | {"core": set()}
    for claim in CLAIMS:
        arms = {arm for arm in (claim.left, claim.right) if isinstance(arm, str)}
        assert arms <= set(STORY.all_arms), claim.text
        of_suite = arms - set(STORY.core)
        assert of_suite <= suites[claim.suite] and bool(of_suite) == (claim.suite != "core"), claim.text
        for control in claim.controls:
            assert {arm for arm in (control.left, control.right) if isinstance(arm, str)} <= set(STORY.all_arms)


def test_a_control_is_never_the_claim_itself():
    for claim in CLAIMS:
        assert all((control.left, control.right) != (claim.left, claim.right) for control in claim.controls)


def test_texts_are_unique_and_every_suite_has_claims():
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.suite for claim in CLAIMS} == {"core", *(suite.name for suite in SUITES)}
    assert {claim.section for claim in CLAIMS} == {"paper", "control", "accuracy", "ours"}


THREE = Story(core=("a", "b", "c"), arms=(Arm(key="a", label="A", control="c"),))


def test_a_study_without_claims_compares_every_pair_in_every_metric():
    claims = default_claims(THREE)
    assert len(claims) == 3 * (len(COMPARED) + 1) and len({claim.text for claim in claims}) == len(claims)
    assert {(claim.left, claim.right) for claim in claims} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert all(claim.kind == "differs" and claim.suite == "core" for claim in claims)


def test_the_declared_control_takes_its_arms_place_and_is_a_section_of_its_own():
    claims = {(claim.left, claim.right): claim for claim in default_claims(THREE)}
    assert claims["a", "c"].section == "control" and claims["a", "c"].controls == ()
    (control,) = claims["a", "b"].controls
    assert (control.left, control.right, control.words) == ("c", "b", "c in the place of A")
    assert claims["b", "c"].controls == ()


def test_references_are_the_core_arms_that_are_no_control():
    assert complete_story(THREE).references == {"a": "A", "b": "b"}
    assert complete_story(Story(core=("a",))).references == {}, "one arm has nothing to be compared with"


@pytest.mark.parametrize(
    ("story", "fault"),
    [
        (Story(arms=(Arm(key="d"),)), "Arm(key='d') is no arm of the study; it has: a, b, c"),
        (Story(arms=(Arm(key="a", control="d"),)), "the control 'd' of arm a is no other arm of core"),
        (Story(arms=(Arm(key="a", control="a"),)), "the control 'a' of arm a is no other arm of core"),
        (Story(arms=(Arm(key="a", label="b"),)), "two arms have the label 'b'"),
        (Story(claims=(CLAIM,)), "names 'sft', no arm of the study"),
        (Story(claims=(replace(CLAIM, left="a", right="b"),) * 2), "two claims have the text"),
        (Story(references={"d": "D"}), "name 'd', no arm of the study"),
        (Story(lead="nope"), "lead='nope' is no figure; choose one of unchanged"),
    ],
)
def test_a_story_that_does_not_fit_its_study_is_one_line(story, fault):
    lines = list(story.find_faults(["a", "b"], ["a", "b", "c"]))
    assert any(fault in line for line in lines), lines
    assert list(Story().find_faults(["a"], ["a"])) == []


def test_a_suite_that_a_story_does_not_describe_has_a_table_beside_those_of_sizes():
    tiny = find_study("tiny")
    extra = replace(tiny.arms()[0], arm="extra")
    story = story_of(replace(tiny, suites=tiny.suites | {"more": (extra,)}))
    assert story.sizes is not None and story.sizes.suite in tiny.suites
    described = {suite.name: suite for suite in story.suites}
    assert described["more"].arms == ("extra",) and described["more"].references == story.core
    assert {"core", story.sizes.suite}.isdisjoint(described)
