"""Which pairs of snapshots are compared: few hold every pair that a page, a monitor or a guard reads."""

import random
from itertools import combinations

import polars as pl
import pytest

from opd_ops.recipe.reaction import earlier
from pipelines.lake import TABLES
from pipelines.regimes.profile import read_profiles
from pipelines.regimes.readings import read_quantities
from pipelines.studies.pairs import SHARES, WHOLE, choose_pairs, nearest_step, require_pairs
from pipelines.studies.steps import MOST, choose_steps

RUN = {"study": "s", "recipe": "s.a", "seed": 0, "role": "q", "matrix": "one"}


def random_steps(seed):
    draw = random.Random(seed)
    return tuple(sorted(draw.sample(range(1, 2000), draw.randint(WHOLE + 1, 2 * WHOLE))))


def test_few_of_few_snapshots_are_all():
    steps = tuple(range(10, 10 * WHOLE + 1, 10))
    for some in (steps, steps[:3], steps[:1], ()):
        assert choose_pairs(some, "few") == choose_pairs(some, "all") == set(combinations(some, 2))
    many = (*steps, 1000)
    assert choose_pairs(many, "few") < choose_pairs(many, "all") == set(combinations(many, 2))


def test_few_are_these():
    steps = tuple(range(100, 6500, 100))
    anchors = choose_steps(steps, "few")
    assert anchors == (100, 400, 1600, 6400)
    few = choose_pairs(steps, "few")
    for step in steps[:-1]:
        assert {(step, 6400), (step, step + 100)} <= few
    for step in steps[1:]:
        assert {(anchor, step) for anchor in anchors if anchor < step} <= few
    # The anchors; the nearest to 10 and 25 %; the last up to half; the one before.
    assert [step for step in steps if (step, 5000) in few] == [100, 400, 500, 1200, 1600, 2500, 4900]
    assert all(step < other for step, other in few)


@pytest.mark.parametrize("seed", range(5))
def test_few_grow_with_the_snapshots(seed):
    for count in (31, 100, 300):
        steps = tuple(sorted(random.Random(seed).sample(range(1, 10**5), count)))
        assert len(choose_pairs(steps, "few")) <= (5 + MOST) * count


@pytest.mark.parametrize("seed", range(20))
def test_a_new_snapshot_changes_the_pairs_with_the_last_one_and_with_anchors_alone(seed):
    steps = random_steps(seed)
    before, after = choose_pairs(steps[:-1], "few"), choose_pairs(steps, "few")
    anchors = {*choose_steps(steps, "few"), *choose_steps(steps[:-1], "few")}
    for step, other in before ^ after:
        assert other in steps[-2:] or step in anchors


@pytest.mark.parametrize("seed", range(20))
def test_readings_of_few_pairs_are_those_of_all(seed):
    steps = random_steps(seed)
    norms = [RUN | {"step": step, "view": "master", "relative_norm": 1.0, "stable_rank": 2.0} for step in steps]
    found = [
        read_quantities(pl.DataFrame(norms, schema=TABLES["update_norm"].schema), _locking(steps, choice))
        for choice in ("all", "few")
    ]
    assert found[0].equals(found[1])
    known = found[0].filter(quantity="similarity_previous").drop_nulls("value")
    assert len(known) == sum(earlier(steps, step) is not None for step in steps)


@pytest.mark.parametrize("seed", range(20))
def test_regimes_of_few_pairs_are_those_of_all_wherever_a_run_ends(seed):
    steps = random_steps(seed)
    norms = [RUN | {"step": step, "view": "master", "relative_norm": step / 1000} for step in steps]
    norms = pl.DataFrame(norms, schema=TABLES["update_norm"].schema)
    found = []
    for choice in ("all", "few"):
        frames = {"update_norm": norms.lazy(), "locking": _locking(steps, choice).lazy()}
        found.append(read_profiles(frames, [("s.a", 0)])["s.a", 0, "master"])
    compared = 0
    for step in steps:
        every, few = (profile.end_at(step).end().values for profile in found)
        for share in SHARES:
            name = f"sim16_{round(100 * share)}"
            assert every[name] == few[name] or (every[name] != every[name] and few[name] != few[name])
            compared += every[name] == every[name]
    assert compared > 0
    middle = (found[0].point_at_norm(step / 1000 + 1e-4) for step in steps[:-1])
    other = (found[1].point_at_norm(step / 1000 + 1e-4) for step in steps[:-1])
    for one, two in zip(middle, other, strict=True):
        assert repr(one) == repr(two)


def test_the_nearest_of_two_is_the_earlier():
    assert nearest_step((1, 3, 8), 8, 0.25) == 1 and nearest_step((7, 8), 8, 0.1) == 7
    assert nearest_step((8, 9), 8, 0.5) is None


def test_a_choice_is_one_of_two():
    assert [require_pairs("--p", text) for text in ("all", "few")] == ["all", "few"]
    with pytest.raises(ValueError, match=r"^--p 'none' is neither all nor few; choose one of them$"):
        require_pairs("--p", "none")
    with pytest.raises(ValueError, match=r"^locking_pairs '1,2' is neither"):
        choose_pairs((1, 2), "1,2")


def _locking(steps, choice):
    """Rows of the pairs chosen; each has a similarity of its own."""
    rows = [
        RUN
        | {"view": "master", "side": "input", "k": 16, "step": step, "step_other": other}
        | {"similarity": step / other + 1e-4 * step, "error": 1e-9}
        for step, other in sorted(choose_pairs(steps, choice))
    ]
    return pl.DataFrame(rows, schema=TABLES["locking"].schema)
