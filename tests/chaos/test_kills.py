"""A few kills, of the many that `make chaos` makes."""

import pytest

from tests.chaos.kills import Undisturbed, disturb


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), runs=1)


@pytest.mark.parametrize("victim", ["trainer", "driver"])
def test_what_was_killed_ends_with_the_same_bytes(victim, undisturbed, tmp_path):
    found = disturb(victim, 1, undisturbed, tmp_path)
    assert (found.kills, found.lost) == (1, [])
    assert found.runs >= 1
