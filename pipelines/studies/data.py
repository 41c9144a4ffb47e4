"""Resolve the paths of weights and data that a study names, and describe the data."""

from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from opd_ops.outside import split_file
from opd_ops.recipe import Given, Task, Weights
from opd_ops.tasks import registry
from pipelines.studies.study import Study


def resolve_paths(study: Study, folder: Path) -> Study:
    """The study with absolute paths for the weights, data and bases that are relative to `folder`.

    A path that does not exist there is kept: relative to the working directory, a name of the store
    (`models/<name>`), or of the hub.
    """
    return replace(
        study,
        models=_resolve_fields(study.models, folder),
        suites=_resolve_fields(study.suites, folder),
        helpers=_resolve_fields(study.helpers, folder),
    )


def data_lines(study: Study) -> list[str]:
    """Lines that describe the existing data of a study, such as the number of held-out problems."""
    lines = []
    for task in (recipe.task for recipe in study.recipes()):
        with suppress(ValueError):
            lines.append(registry.outline(task))
    return list(dict.fromkeys(filter(None, lines)))


def _resolve_fields(value: Any, folder: Path) -> Any:
    if isinstance(value, Weights):
        return replace(value, ref=_resolve_path(value.ref, folder))
    if isinstance(value, Given):
        return replace(value, path=_resolve_path(value.path, folder))
    if isinstance(value, Task):
        moved = {name: _resolve_path(path, folder) for name, path in registry.path_options(value).items()}
        return replace(value, options=value.options | moved)
    if is_dataclass(value) and not isinstance(value, type):
        moved = {
            field.name: _resolve_fields(getattr(value, field.name), folder) for field in fields(value) if field.init
        }
        changed = {name: new for name, new in moved.items() if new is not getattr(value, name)}
        return replace(value, **changed) if changed else value
    if isinstance(value, dict):
        return {key: _resolve_fields(item, folder) for key, item in value.items()}
    if isinstance(value, tuple):
        items = tuple(_resolve_fields(item, folder) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _resolve_path(path: str, folder: Path) -> str:
    file, name = split_file(path)
    lies = folder / Path(file).expanduser()
    return f"{lies.resolve()}{name}" if lies.exists() else path
