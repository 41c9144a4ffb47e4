"""Findings about objects of a store: the object, its problem and the remedy."""

from dataclasses import dataclass

from pipelines.store.names import escape_text

KINDS = {
    "damaged": "not what was written",
    "missing": "named by others, and not there",
    "layout": "of a layout that this version does not read",
    "orphan": "left behind by what was stopped, or being written now",
    "foreign": "not explained by the layout of a store",
}
COPY = "bring it back from a copy (`opd import URI RUN`), or make the run again in another OPD_STORE"
SWEEP = "`opd gc` deletes it once it is old"
MOVE_AWAY = "move it out of the store"
AGAIN = "delete it; it is made again when it is asked for"


@dataclass(frozen=True, order=True)
class Finding:
    """One problem of one object. kind: a key of KINDS."""

    kind: str
    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return escape_text(f"{self.key} {self.what}: {self.remedy}")


def damaged(key: str, what: str, remedy: str = COPY) -> Finding:
    return Finding("damaged", key, what, remedy)


def missing(key: str, what: str, remedy: str = COPY) -> Finding:
    return Finding("missing", key, what, remedy)


def orphan(key: str, what: str) -> Finding:
    return Finding("orphan", key, what, SWEEP)


def foreign(key: str, what: str) -> Finding:
    return Finding("foreign", key, what, MOVE_AWAY)
