"""The suite steering: rlvr, and what is done to its steps once its update turns more than OPD's of the same norm does.

The guard reads Sim_16 to an earlier step every 5 steps and trips at the second reading in a row outside the band of
tiny.opd's three seeds. From then on

    rlvr-noise-sham   nothing: equal to rlvr to the last byte, if watching does nothing
    rlvr-noise-iso    Gaussian noise of the step's own norm is added to every step (-iso3: three times it)
    rlvr-noise-off    the same noise off the 16 leading directions of the update at the trip (-off3: three times it)
"""

from dataclasses import replace

from opd_ops.recipe import Guard, Reaction, Recipe
from opd_ops.recipe.reaction import Action
from pipelines.studies.tiny.core import rlvr

GUARD = Guard(quantity="similarity", reference="tiny.opd")


def steering() -> tuple[Recipe, ...]:
    return (
        _steered_arm("sham", "none", None),
        _steered_arm("iso", "isotropic-noise", 1.0),
        _steered_arm("iso3", "isotropic-noise", 3.0),
        _steered_arm("off", "off-channel-noise", 1.0),
        _steered_arm("off3", "off-channel-noise", 3.0),
    )


def _steered_arm(word: str, action: Action, strength: float | None) -> Recipe:
    reaction = Reaction(guard=GUARD, action=action, strength=strength)
    return replace(rlvr(), arm=f"rlvr-noise-{word}", reaction=reaction)
