"""The catalog of studies by name: of this package, of OPD_STUDIES, and of entry points `opd.studies`.

A new study is a file with a function `study() -> Study`. A file that also defines `task` adds a task
(`opd_ops.tasks.registry`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from opd_ops import outside
from opd_ops.outside import Reference
from opd_ops.recipe import Recipe
from opd_ops.recipe.name import ALLOWED, NAME
from opd_ops.tasks import registry
from pipelines.studies import qwen3, smollm, tiny
from pipelines.studies.data import resolve_paths
from pipelines.studies.story import Story
from pipelines.studies.study import Study

FUNCTION, GROUP = "study", "opd.studies"
HERE = "this package"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Studies and their origins by name, and one line per entry point that failed to load."""

    studies: dict[str, Study]
    origins: dict[str, str]
    broken: tuple[str, ...]


def list_studies() -> dict[str, Study]:
    """All studies by name. Errors: as `read_catalog`."""
    return read_catalog().studies


def read_catalog() -> Catalog:
    """The studies with their origins. An entry point that cannot be loaded leaves the others usable.

    Errors: ValueError for a file or module of OPD_STUDIES that gives no study, and for two studies with one name.
    """
    references = outside.listed_references(outside.STUDIES, FUNCTION)
    studies, origins, broken = dict(_own_studies()), dict.fromkeys(_own_studies(), HERE), list[str]()

    def add(study: Study, origin: str) -> None:
        if study.name in studies and origins[study.name] != origin:
            raise ValueError(
                f"two studies are called {study.name!r}, of {origins[study.name]} and of {origin}: rename one"
            )
        studies[study.name], origins[study.name] = study, origin

    for reference in references:
        add(load_study(reference), shorten(reference))
    for entry in outside.entry_points(GROUP):
        try:
            add(load_study(Reference(entry.module, entry.attr)), f"{entry.value} (entry point {entry.name})")
        except ValueError as error:
            broken.append(f"entry point {entry.name} of {GROUP} gives no study: {error}")
    return Catalog(studies=studies, origins=origins, broken=tuple(broken))


def load_study(reference: Reference) -> Study:
    """The study of a file or a module, whose task is registered first where it has one.

    Errors: ValueError in one line for anything but a study.
    """
    function = outside.load_object(reference)
    if hasattr(outside.load_module(reference.source), registry.OBJECT):
        task = Reference(reference.source, registry.OBJECT)
        outside.append_reference(outside.TASKS, task, registry.OBJECT)
    return _make_study(reference, function)


def find_study(reference: str) -> Study:
    """The study of that name, file (`./mine.py`) or module (`package.module:study`).

    A file or module joins OPD_STUDIES, so that processes started from here know the study by its name.
    Errors: as `read_catalog`; ValueError for an unknown name, that lists the known ones.
    """
    if outside.is_reference(reference):
        parsed = outside.parse_reference(reference, FUNCTION)
        study = load_study(parsed)
        outside.append_reference(outside.STUDIES, parsed, FUNCTION)
        list_studies()  # another study may have its name
        return study
    catalog = read_catalog()
    if reference not in catalog.studies:
        hint = f"; there is a file ./{reference}.py: name it so" if Path(f"{reference}.py").is_file() else ""
        broken = "".join(f"; {line}" for line in catalog.broken)
        raise ValueError(f"unknown study {reference!r}; known: {', '.join(catalog.studies)}{hint}{broken}")
    return catalog.studies[reference]


def study_arg(name: str) -> str:
    """The argument that names a study in a command: its file or module if it came from one, else its name."""
    for reference in outside.listed_references(outside.STUDIES, FUNCTION):
        if load_study(reference).name == name:
            return shorten(reference)
    return name


def shorten(reference: Reference) -> str:
    """A path or module name, relative to the working directory if shorter."""
    source = reference.source
    if source.endswith(".py") and (path := Path(source)).is_relative_to(folder := Path.cwd()):
        source = f"./{path.relative_to(folder)}"
    return source if source.endswith(".py") and reference.name == FUNCTION else f"{source}:{reference.name}"


def suggest_command(name: str, seed: int) -> str:
    """The command that trains a missing run, if a study of the catalog contains it."""
    for study in list_studies().values():
        for suite, arms in study.suites.items():
            if name in {recipe.name for recipe in arms}:
                named = "" if suite == "core" else f" --suite {suite}"
                return f"train it first: opd study run {study_arg(study.name)}{named} --recipe {name} --seed {seed}"
        if name in {recipe.name for recipe in (*study.models, *study.helpers)}:
            return f"train it first: opd study run {study_arg(study.name)}"
    return "train it first"


def find_recipe(name: str) -> Recipe:
    """The recipe of that name in any study, models and helpers included.

    Errors: ValueError for an unknown one, that lists those of its study, or says how to name its study.
    """
    catalog, study = list_studies(), name.partition(".")[0]
    if study not in catalog:
        raise ValueError(f"no study is called {study!r}: name the file of its study, OPD_STUDIES=./FILE.py")
    names = {recipe.name: recipe for recipe in catalog[study].recipes()}
    if name not in names:
        raise ValueError(f"unknown recipe {name!r}; study {study} has: {', '.join(names)}")
    return names[name]


@cache
def _own_studies() -> dict[str, Study]:
    return {study.name: study for study in (tiny.study(), smollm.study(), qwen3.study())}


@cache  # a file that has changed is another function
def _make_study(reference: Reference, function: Callable[[], Study]) -> Study:
    if not callable(function):
        raise ValueError(f"{reference} is {type(function).__name__}: write a function that returns a Study")
    try:
        study = function()
    except Exception as error:
        raise ValueError(outside.describe_failure(error, reference.source)) from error
    if not isinstance(study, Study):
        raise ValueError(f"{reference} returns {type(study).__name__}: return a Study of pipelines.studies.study")
    for fault in find_faults(study):
        raise ValueError(f"{reference}: {fault}")
    return resolve_paths(study, Path(reference.source).parent) if reference.source.endswith(".py") else study


def find_faults(study: Study) -> Iterator[str]:
    """The faults that make a study impossible to run or ambiguous, one line each."""
    if not NAME.fullmatch(study.name) or "." in study.name:
        yield f"{study.name!r} cannot name a study: {ALLOWED}, without a dot"
    if (
        not isinstance(study.seeds, tuple)
        or not study.seeds
        or not all(isinstance(seed, int) and seed >= 0 for seed in study.seeds)
    ):
        yield f"seeds={study.seeds!r} are no numbers from 0 up: write seeds=(0, 1, 2)"
    if not study.suites.get("core"):
        yield f"suites has no arms called core, which the page is about; it has: {', '.join(study.suites) or 'none'}"
    if isinstance(study.story, Story):
        every = dict.fromkeys(recipe.arm for recipe in study.every_arm())
        yield from study.story.find_faults([recipe.arm for recipe in study.suites.get("core", ())], list(every))
    names: dict[str, Recipe] = {}
    for recipe in study.recipes():
        if recipe.study != study.name:
            yield (
                f"the recipe {recipe.name} says study={recipe.study!r}, and the study is called {study.name!r}: give "
                "both one name"
            )
        if names.setdefault(recipe.name, recipe) != recipe:
            yield f"two different recipes are called {recipe.name}: give one of them another arm"
    if study.anchor is not None and not study.anchors():
        arms = ", ".join(dict.fromkeys(recipe.arm for recipe in study.every_arm()))
        yield f"anchor={study.anchor!r} is none of its arms ({arms}): name the one that others start from, or None"
