"""The last lines of `opd study run`: the verdicts, the headline by arm, and the address of the page.

At most `LINES` lines within the terminal's width; only a path may be longer, so that it can be copied.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.cli.layout import shorten_text, terminal_width, wrap_text
from pipelines.cli.verdicts import count_statements, format_difference, read_verdicts
from pipelines.store.objects import Store
from pipelines.studies.catalog import study_arg
from pipelines.studies.study import Study

if TYPE_CHECKING:
    import polars as pl

    from pipelines.statistics.metrics import Metric

LINES = 15  # at most, empty lines included
# Statements that are named, of those that fail and of the undecided; the first that leave room for the rest.
NAMED = ((3, 3), (3, 2), (2, 2), (2, 1), (1, 1), (0, 0))
FULL = 3  # least number of seeds for a verdict


def summarise_study(store: Store, study: Study, suites: Sequence[str], time: str = "") -> str:
    """The summary that a launch prints. time: where the seconds went, in one line; may be empty."""
    from pipelines.runs.verdicts import comparing

    tables = comparing.read_tables(store, study)
    arms = list(dict.fromkeys(recipe.arm for suite in suites for recipe in study.arms(suite)))
    rows, left_out = read_verdicts(store, study, suites), _left_out(comparing.describe_excluded(store, study))
    table = _headline(study, tables, arms)
    seconds = wrap_text(f"time: {time}").splitlines() if time else []
    end = [*seconds, *describe_page(store, comparing.report_key(study), study.name)]
    lines = []
    for failing, undecided in NAMED:
        head = _statements(study, suites, rows, _measured_seeds(study, tables, arms), failing, undecided)
        lines = [*head, *left_out, *(["", *table] if table else []), "", *end]
        if len(lines) <= LINES:
            break
    return "\n".join(lines if len(lines) <= LINES else [line for line in lines if line])


def _left_out(excluded: Sequence[str]) -> list[str]:
    """One line about the runs that do not count."""
    more = f" (and {len(excluded) - 1} more)" if len(excluded) > 1 else ""
    return [f"{'left out':<11}{shorten_text(run, terminal_width() - 11 - len(more))}{more}" for run in excluded[:1]]


def describe_page(store: Store, key: str, name: str) -> list[str]:
    """The address of a page and, if no browser can read the store, the command that saves a copy."""
    path = store.location(key)
    if "://" in path:
        return [f"page: {path}", f"a copy to open: opd report {study_arg(name)} --save {name}.html"]
    here = os.path.relpath(path)
    return [f"page: {path if here.startswith('..') else here} (open it in a browser)"]


def _statements(
    study: Study, suites: Sequence[str], rows: "pl.DataFrame", seeds: dict[str, int], failing: int, undecided: int
) -> list[str]:
    """Counts of statements, those that fail and those undecided; or the reason why there are none.

    seeds: of the measured arms. failing, undecided: how many statements are listed at most.
    """
    core = list(suites) == ["core"]
    name, most = study.name if core else f"{study.name}, {', '.join(suites)}", max(seeds.values(), default=0)
    command = f"opd study verdicts {study_arg(study.name)}"
    command += "" if core else "".join(f" --suite {suite}" for suite in suites)
    if rows.is_empty():
        why = f"that takes two measured arms, and there is {len(seeds)}" if len(seeds) < 2 else "of these arms"
        return wrap_text(f"{name}: no statements ({why})").splitlines()
    if most < FULL:
        number = f"{most} seed{'' if most == 1 else 's'}"
        few = f"none decided, since that takes {FULL} seeds and these arms have {number}; the differences"
        return wrap_text(f"{name}: {len(rows)} statements, {few}: {command}").splitlines()
    lines = wrap_text(f"{name}: {count_statements(rows)}").splitlines()
    for status, limit in (("fails", failing), ("undecided", undecided)):
        of_status = rows.filter(status=status)
        lines += [_line(row, status if not place else "") for place, row in enumerate(of_status.head(limit).to_dicts())]
        if len(of_status) > limit:
            rest = f"and {len(of_status) - limit} more" if limit else f"{len(of_status)}"
            line = f"{'' if limit else status:<11}{rest}: {command}"
            narrowed = f"{line} --status {status}"
            lines.append(narrowed if len(narrowed) <= terminal_width() else line)
    return lines


def _line(row: dict[str, Any], status: str) -> str:
    """One statement in one line, with its difference if that fits."""
    room = terminal_width() - 11
    whole = f"{row['claim']}: {format_difference(row)}"
    return f"{status:<11}{whole if len(whole) <= room else shorten_text(row['claim'], room)}"


def _measured_seeds(study: Study, tables: "dict[str, pl.LazyFrame]", arms: Sequence[str]) -> dict[str, int]:
    """Measured arms with their number of seeds."""
    import polars as pl

    names = {f"{study.name}.{arm}": arm for arm in arms}
    rows = tables["update_norm"].filter(pl.col("recipe").is_in(list(names)))
    counted = rows.group_by("recipe").agg(pl.col("seed").n_unique()).collect()
    return {names[recipe]: seeds for recipe, seeds in counted.iter_rows()}


def _headline(study: Study, tables: "dict[str, pl.LazyFrame]", arms: Sequence[str]) -> list[str]:
    """A heading, and a row for each metric with a column for each arm; arms beyond the width are only counted."""
    from pipelines.statistics.headline import ABSENT, format_cell, headline_rows
    from pipelines.statistics.numbers import align_columns
    from pipelines.statistics.stories import story_of

    story, rows = story_of(study), []
    for name, unit, metrics in _metrics(tables):
        frames = (headline_rows(study.name, tables, story, (metric,), arms) for metric in metrics)
        frame = next((frame for frame in frames if not frame.is_empty()), None)
        if frame is not None:
            cells = {row["arm"]: format_cell(row).removesuffix(f" {unit}") for row in frame.iter_rows(named=True)}
            rows.append((f"{name}, {unit}" if unit else name, cells))
    present = [arm for arm in arms if any(arm in cells for _, cells in rows)]
    if not present:
        return []
    columns = [["mean ± 95 %", *(name for name, _ in rows)]]
    columns += [[story.label(arm), *(cells.get(arm, ABSENT) for _, cells in rows)] for arm in present]
    widths = [max(map(len, column)) for column in columns]
    fitting = len(columns)
    while fitting > 2 and sum(widths[:fitting]) + 2 * (fitting - 1) > terminal_width():
        fitting -= 1
    lines = align_columns(list(zip(*columns[:fitting], strict=True))).splitlines()
    if more := len(columns) - fitting:
        lines.append(f"and {more} more arm{'' if more == 1 else 's'} on the page")
    return lines


def _metrics(tables: "dict[str, pl.LazyFrame]") -> "list[tuple[str, str, tuple[Metric, ...]]]":
    """The four rows: a name, its unit, and metrics; the first metric with values is shown."""
    import polars as pl

    from pipelines.statistics.metrics import ACCURACY, ROTATION, STABLE_RANK, UNCHANGED

    evaluated = tables["evaluation"].select(pl.col("temperature").max()).collect().item()
    temperature = 1.0 if evaluated is None else evaluated
    accuracy = replace(ACCURACY, where=(("temperature", temperature),))
    return [
        ("unchanged", "%", (UNCHANGED,)),
        ("rotation", "deg", (ROTATION["bf16"], ROTATION["master"])),
        ("stable rank", "", (STABLE_RANK["master"], STABLE_RANK["bf16"])),
        (f"accuracy T={temperature:g}", "%", (accuracy,)),
    ]
