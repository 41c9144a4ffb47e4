"""One fixed look for every arm: its key decides colour, dash and point shape in every figure.

Core arms keep theirs (`arms.ARMS`). An arm of a group of `suites.SUITES` takes its place in the ramp of the group, dark
to light; an arm continued from another takes the other's colour, darkened by what confines it. These are the colours on
white; a dark page turns their lightness over (`page.css`). Within every item, on both, any two arms differ by at least
9 in CIE Lab, also as a person without red, green or blue cones sees them, and every line has a contrast of at least 3
with the page; dash and shape repeat the colour.
"""

import re
from functools import cache

from pipelines.paper.arms import BY_KEY
from pipelines.paper.suites import SUITES
from pipelines.report.palette import STAR
from pipelines.studies.story import Arm

RAMPS = {  # of the groups of suites.SUITES; sRGB
    "Estimator": ("#b0307a",),
    "Token selection": ("#6c1b22", "#913c3e", "#b35a5a", "#d67978"),
    "Rollout source": ("#379cd0", "#6b6b6b"),
    "Self-teacher": ("#5f7f2f",),
    "Mixing": ("#402a01", "#5c4011", "#795720", "#976f2f", "#b7883f"),
    "Mixing without OPD": ("#8c8c8c",),
}
IMPORTED = " (imported)"  # ends the key of a trajectory from elsewhere
OTHER = ("#3d3d3d", "#666666", "#8f8f8f")  # arms that nothing places
SHAPES = ("circle", "square", "diamond", "triangle-down", "cross", STAR, "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 2), (3, 3), (9, 3, 2, 3), (5, 5), (12, 3), (4, 2), (1, 3))
LATER = {"Estimator": 6, "Mixing without OPD": 7}  # places past those of the mixes, with which they are drawn
CONTINUED = re.compile(r"(?P<parent>.+)-at\d+(?:-(?P<basis>[a-z-]+?)\d+(?:-[a-z]+)?)?")
DARKER = {"own": 0.4, "random": 0.65, "start": 0.75}  # how far to black


@cache
def arm_style(key: str) -> Arm:
    """The look of an arm; outside core its label is its key."""
    if key in BY_KEY:
        return BY_KEY[key]
    if continued := CONTINUED.fullmatch(key):
        return _continued_arm(key, **continued.groupdict())
    if key.endswith(IMPORTED):
        return Arm(key=key, label=key, color=OTHER[0], dash=(1, 0), shape="cross", meaning="")
    for group in (group for suite in SUITES for group in suite.groups):
        if key in group.arms:
            place, ramp = group.arms.index(key), RAMPS.get(group.name, OTHER)
            return _arm(key, ramp[place % len(ramp)], LATER.get(group.name, place + 1))
    place = sum(key.encode())
    return _arm(key, OTHER[place % len(OTHER)], place)


def _continued_arm(key: str, parent: str, basis: str | None) -> Arm:
    color = arm_style(parent).color
    if basis is None:
        return _arm(key, color, 0)
    mark = 1 + list(DARKER).index(basis) if basis in DARKER else 4
    return _arm(key, _darker(color, DARKER.get(basis, 0.15)), mark)


def _arm(key: str, color: str, mark: int) -> Arm:
    dash, shape = DASHES[mark % len(DASHES)], SHAPES[mark % len(SHAPES)]  # 0, solid and round, is OPD
    return Arm(key=key, label=key, color=color, dash=dash, shape=shape, meaning="")


def _darker(color: str, share: float) -> str:
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel * (1 - share)):02x}" for channel in channels)
