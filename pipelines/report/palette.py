"""The look of every arm of a story: as declared, or colour, dash and shape by position.

Colours are those on white; on a dark page `page.css` turns their lightness over and keeps the hue. On both, any two of
`COLORS` differ by at least 12 in CIE Lab, also as a person without red, green or blue cones sees them, and each has a
contrast of at least 3 with the page. Dash and shape repeat the colour.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.studies.story import Arm, Story

COLORS = ("#0072b2", "#c88500", "#009e73", "#cc79a7", "#22223b", "#3c5a00", "#6e3b5d", "#729450")
STAR = "M0,-1L.24,-.31L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.31Z"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", STAR, "triangle-left")
DASHES = ((1, 0), (6, 2), (2, 2), (9, 3, 2, 3), (5, 5), (12, 3), (4, 2), (1, 3))


def arm_looks(story: Story, keys: Sequence[str]) -> list[Arm]:
    """The arms `keys` with label, colour, dash and shape filled in.

    The position counts arms without a declared colour, in the order of the story; other arms follow. The ninth arm
    repeats the first colour with another dash.
    """
    free = [key for key in dict.fromkeys((*story.all_arms, *keys)) if not story.arm(key).color]
    used = {story.arm(key).color.lower() for key in story.all_arms}
    colors = [color for color in COLORS if color not in used] or COLORS
    return [_look(story.arm(key), free.index(key) if key in free else None, colors) for key in keys]


def _look(arm: Arm, place: int | None, colors: Sequence[str]) -> Arm:
    named = replace(arm, label=arm.label or arm.key)
    if place is None:
        return named
    turn, spot = divmod(place, len(colors))
    mark = COLORS.index(colors[spot])  # dash and shape go with the colour, so that no declared arm's neighbour has them
    return replace(
        named, color=colors[spot], dash=DASHES[(mark + turn) % len(DASHES)], shape=SHAPES[(mark + turn) % len(SHAPES)]
    )
