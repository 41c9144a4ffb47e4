"""One kind of bad input, made in a fresh place and brought to its door."""

from dataclasses import dataclass
from pathlib import Path

from tests.refusals.rows import Row
from tests.refusals.scene import Place


@dataclass(frozen=True)
class Answer:
    """line: what was said, with what differs from place to place left out. changed: objects and files that did."""

    line: str
    code: int
    changed: tuple[str, ...]


def bring(row: Row, root: Path) -> Answer:
    """Errors: whatever the door raises besides what it may: ValueError, and OSError of a store."""
    place = Place(root)
    row.make(place)
    before = place.objects()
    if isinstance(row.door, str):
        code, said = place.opd(*row.door.split(" "))
    else:
        code, said = 0, ""
        try:
            with place.inside():
                row.door(place)
        except (ValueError, OSError) as error:
            code, said = 2, f"{error}\n"
    after = place.objects()
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return Answer(place.shown(said.removesuffix("\n")), code, tuple(sorted(changed)))
