"""One fixed look for every arm: colour, dash and point shape follow from its key, whichever figure it stands in.

Core arms keep theirs (`arms.ARMS`, Okabe-Ito). An arm of a group of `suites.SUITES` takes its place in the ramp of the
group, dark to light; an arm continued from another takes the other's colour, darkened or lightened by what confines it.
Within every item any two arms differ by at least 9 in CIE Lab, also as a person without red, green or blue cones sees
them; against white and against the dark page every line has a contrast of at least 1.7, and dash and shape repeat it.
"""

import re
from functools import cache

from pipelines.report.arms import BY_KEY, Arm
from pipelines.report.suites import SUITES

RAMPS = {  # of the groups of suites.SUITES; sRGB
    "Estimator": ("#b0309a",),
    "Token selection": ("#8e393c", "#b25959", "#d77978", "#fd9b99"),
    "Rollout source": ("#56b4e9", "#6b6b6b"),
    "Self-teacher": ("#5f7f2f",),
    "Mixing": ("#6e4f10", "#896728", "#a47f3f", "#c09857", "#dcb270"),
    "Mixing without OPD": ("#8c8c8c",),
}
OTHER = ("#4d4d4d", "#777777", "#a0a0a0")  # arms that nothing places
STAR = "M0,-1L.24,-.31L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.31Z"
SHAPES = ("circle", "square", "diamond", "triangle-down", "cross", STAR, "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 2), (3, 3), (9, 3, 2, 3), (5, 5), (12, 3), (4, 2), (1, 3))
LATER = {"Estimator": 6, "Mixing without OPD": 7}  # places past those of the mixes, with which they are drawn
CONTINUED = re.compile(r"(?P<parent>.+)-at\d+(?:-(?P<basis>[a-z-]+?)\d+(?:-[a-z]+)?)?")
TOWARDS = {"own": (0, 0.22), "random": (255, 0.3), "start": (0, 0.4)}  # end of the channels, and how far there


@cache
def style(key: str) -> Arm:
    """The look of an arm; outside core its label is its key."""
    if key in BY_KEY:
        return BY_KEY[key]
    if continued := CONTINUED.fullmatch(key):
        return _continued(key, **continued.groupdict())
    for group in (group for suite in SUITES for group in suite.groups):
        if key in group.arms:
            place, ramp = group.arms.index(key), RAMPS.get(group.name, OTHER)
            return _arm(key, ramp[place % len(ramp)], LATER.get(group.name, place + 1))
    place = sum(key.encode())
    return _arm(key, OTHER[place % len(OTHER)], place)


def _continued(key: str, parent: str, basis: str | None) -> Arm:
    color = style(parent).color
    if basis is None:
        return _arm(key, color, 0)
    end, share = TOWARDS.get(basis, (0, 0.15))
    return _arm(key, _towards(color, end, share), 1 + list(TOWARDS).index(basis) if basis in TOWARDS else 4)


def _arm(key: str, color: str, mark: int) -> Arm:
    dash, shape = DASHES[mark % len(DASHES)], SHAPES[mark % len(SHAPES)]  # 0, solid and round, is OPD
    return Arm(key=key, label=key, color=color, dash=dash, shape=shape, meaning="")


def _towards(color: str, end: int, share: float) -> str:
    """`color` moved to black (0) or white (255)."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel + share * (end - channel)):02x}" for channel in channels)
