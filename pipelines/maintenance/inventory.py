"""Classifies the objects of a store by their names.

runs/<recipe>/seed-<n>/run.json  end.json                         run, end
runs/<recipe>/seed-<n>/step-<8 digits>/manifest.json              manifest
runs/<recipe>/seed-<n>/step-<8 digits>/<weights>.safetensors      weights
runs/<recipe>/seed-<n>/{resume,moments}/step-<8 digits>/...       resume, moments
runs/<recipe>/seed-<n>/rollouts/steps-<8>-<8>.parquet             rollouts
runs/<recipe>/seed-<n>/measured/<matrix>/<24 digits>.safetensors  part
runs/<recipe>/seed-<n>/<measured,transfer,projected,import>.json  record
runs/<recipe>/seed-<n>/import-<8 digits>.json                     record, which replaced the earlier import.json
lake/<table>/<key>=<value>/.../part-0.parquet                     table
models/<name>/<file>   bases/...   reports/<study>/...            model, base, report
scores/<teacher>/<64 digits>.parquet                              score: teacher scores, cached by earlier versions
watched/<name>.json                                               watch
removed/<recipe>/seed-<n>/<number>/<any of these>   moved.json    removed: of runs that were moved aside
.probe-<32 digits>, and .<name>.<32 digits> beside any of these   temporary: what a killed write left
anything else                                                     foreign
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines.lake.lake import describe_layout
from pipelines.lake.schemas import TABLES
from pipelines.store.names import NAME, repr_short, require_name, stays_inside
from pipelines.store.objects import Listed

_RUN = re.compile(rf"runs/(?P<recipe>{NAME})/seed-(?P<seed>0|[1-9]\d*)/(?P<rest>.+)", re.ASCII | re.DOTALL)
_REST = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        ("run", r"run\.json"),
        ("end", r"end\.json"),
        ("record", r"(measured|transfer|projected|import(-\d{8})?)\.json"),
        ("manifest", r"step-(?P<step>\d{8})/manifest\.json"),
        ("weights", rf"step-(?P<step>\d{{8}})/{NAME}\.safetensors"),
        ("resume", r"resume/step-(?P<step>\d{8})/(state\.safetensors|facts\.json)"),
        ("moments", r"moments/step-(?P<step>\d{8})/(state\.safetensors|facts\.json)"),
        ("rollouts", r"rollouts/steps-\d{8}-\d{8}\.parquet"),
        ("part", rf"measured/{NAME}/[0-9a-f]{{24}}\.safetensors"),
    )
)
_OTHERS = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        ("model", rf"models/{NAME}(/{NAME})+"),
        ("base", rf"bases/by-source/[0-9a-f]{{64}}/{NAME}"),
        ("base", rf"bases/{NAME}/v\d+/{NAME}\.(safetensors|json)"),
        ("score", r"scores/[0-9A-Za-z-]+/[0-9a-f]{64}\.parquet"),
        ("report", rf"reports/{NAME}/{NAME}"),
        ("watch", rf"watched/{NAME}\.json"),
    )
)
_TABLE = re.compile(rf"lake/(?P<table>\w+)/(?P<keys>\w+={NAME}(/\w+={NAME})*)/part-0\.parquet", re.ASCII)
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}", re.DOTALL)
_PROBE = re.compile(r"\.probe-[0-9a-f]{32}(\.[0-9a-f]{32})?|\.\.probe-[0-9a-f]{32}\.[0-9a-f]{32}")

_REMOVED = re.compile(rf"removed/{NAME}/seed-(0|[1-9]\d*)/[1-9]\d*/(?P<key>.+)", re.ASCII | re.DOTALL)

Run = tuple[str, int]  # recipe and seed


@dataclass(frozen=True)
class Item:
    """One object. run: the run it belongs to; step: the step of its snapshot or state; None if it has none."""

    key: str
    kind: str
    run: Run | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        return posixpath.basename(self.key)


@dataclass(frozen=True)
class Inventory:
    """All objects of a store, or those under some of its prefixes, as one listing showed them."""

    objects: Mapping[str, Listed]
    items: tuple[Item, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(classify(key) for key in self.objects))

    def items_of_kind(self, *kinds: str) -> list[Item]:
        return [item for item in self.items if item.kind in kinds]

    def runs(self) -> dict[Run, list[Item]]:
        """The objects of each run, without foreign and temporary ones."""
        runs: dict[Run, list[Item]] = {}
        for item in self.items:
            if item.run is not None and item.kind not in ("temporary", "foreign"):
                runs.setdefault(item.run, []).append(item)
        return runs

    def nbytes(self, keys: Iterable[str]) -> int:
        return sum(self.objects[key].size for key in keys)


def classify(key: str) -> Item:
    """The kind of an object. Every name is accepted: an object outside the layout is foreign."""
    if not stays_inside(key):
        return Item(key, "foreign")
    if match := _REMOVED.fullmatch(key):
        explained = match["key"] == "moved.json" or classify(match["key"]).kind != "foreign"
        return Item(key, "removed" if explained else "foreign")
    folder, name = posixpath.split(key)
    if _PROBE.fullmatch(key):
        return Item(key, "temporary")
    if match := _TEMPORARY.fullmatch(name):
        meant = classify(posixpath.join(folder, match["name"]))
        kind = "foreign" if meant.kind in ("foreign", "temporary") else "temporary"
        return Item(key, kind, meant.run, meant.step)
    if match := _RUN.fullmatch(key):
        run = match["recipe"], int(match["seed"])
        for kind, pattern in _REST:
            if rest := pattern.fullmatch(match["rest"]):
                step = rest.groupdict().get("step")
                return Item(key, kind, run, None if step is None else int(step))
        return Item(key, "foreign", run)
    if (
        (match := _TABLE.fullmatch(key))
        and match["table"] in TABLES
        and describe_layout(TABLES[match["table"]]).fullmatch(key)
    ):
        keys = dict(part.split("=", 1) for part in match["keys"].split("/"))
        of_run = "recipe" in keys and not keys["seed"].startswith("-")
        return Item(key, "table", (keys["recipe"], int(keys["seed"])) if of_run else None)
    for kind, pattern in _OTHERS:
        if pattern.fullmatch(key):
            return Item(key, kind)
    return Item(key, "foreign")


def parse_run(text: str) -> tuple[str, int | None]:
    """RECIPE or RECIPE/SEED. Errors: ValueError in one line."""
    recipe, _, seed = text.partition("/")
    require_name(recipe, "recipe")
    if not seed and "/" not in text:
        return recipe, None
    if not re.fullmatch(r"0|[1-9]\d{0,17}", seed.removeprefix("seed-"), re.ASCII):
        raise ValueError(f"{repr_short(text)} names no run: write RECIPE or RECIPE/SEED, as in tiny.opd/0")
    return recipe, int(seed.removeprefix("seed-"))
