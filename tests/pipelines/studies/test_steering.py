"""The steered arms are RLVR with one guard, and differ in what is done after it trips."""

from opd_ops.recipe import differences
from pipelines.runs.trajectories.training import parents
from pipelines.studies import tiny

ARMS = {recipe.arm: recipe for recipe in tiny.steering()}


def test_every_arm_is_rlvr_until_its_guard_trips():
    for recipe in ARMS.values():
        changed = {line.split(": ")[0] for line in differences(tiny.rlvr().identity(), recipe.identity())}
        assert changed == {"arm", "reaction"}
    assert len({recipe.reaction.guard for recipe in ARMS.values()}) == 1


def test_the_sham_does_nothing_and_the_others_add_noise_of_two_kinds_and_sizes():
    assert ARMS["rlvr-noise-sham"].reaction.action == "none"
    found = {(r.reaction.action, r.reaction.strength) for r in ARMS.values()} - {("none", None)}
    assert found == {(kind, size) for kind in ("isotropic-noise", "off-channel-noise") for size in (1.0, 3.0)}


def test_the_band_is_of_all_seeds_of_opd():
    assert {("tiny.opd", seed) for seed in tiny.study().seeds} <= set(parents(ARMS["rlvr-noise-iso"], 1))
