"""Text that fits the terminal: wrapped lines, and tables whose columns are wrapped or stacked but never cut."""

import shutil
import textwrap
from collections.abc import Sequence

from pipelines.statistics.numbers import align_columns

OF_FILES = 100  # columns without a terminal and without COLUMNS
UNLIMITED = 1_000_000
LEAST = 40  # narrower terminals are treated as this wide
NARROW = 24  # least columns of a wrapped column; below that it moves to its own lines
MORE = "…"


def terminal_width() -> int:
    """Columns of the terminal. Without a terminal: the value of COLUMNS, or `OF_FILES`."""
    return max(LEAST, shutil.get_terminal_size((OF_FILES, 24)).columns)


def wrap_text(text: str, first: str = "", rest: str | None = None, width: int | None = None) -> str:
    """Wrap `text` after the prefix `first`; later lines start with `rest` (default: as many spaces). Long words stay
    whole.

    width: columns. The default is the terminal's width; without a terminal the text stays on one line, so that other
    programs can wrap or search it.
    """
    indent = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(
        " ".join(text.split()),
        max(LEAST, shutil.get_terminal_size((UNLIMITED, 24)).columns) if width is None else width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or first.rstrip()


def shorten_text(text: str, width: int) -> str:
    """Shorten `text` to at most `width` columns: whole words, and an ellipsis where words are dropped."""
    if len(text) <= width:
        return text
    words = text[: max(1, width - 1)]
    return f"{words.rsplit(' ', 1)[0].rstrip(' ,;:(')}{MORE}"


def fit_table(lines: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in aligned columns; the last column is wrapped to the remaining width."""
    heads = [line[:-1] for line in lines]
    left = align_columns([[*head, "|"] for head in heads]).splitlines()  # the mark keeps the widths of all lines equal
    room = terminal_width() - (len(left[0]) - 1)
    parts = []
    for line, text in zip(left, (line[-1] for line in lines), strict=True):
        if room >= NARROW or len(text) <= room:
            parts.append(wrap_text(text, line[:-1], width=terminal_width()) if text else line[:-1].rstrip())
        else:
            parts += [line[:-1].rstrip(), wrap_text(text, "    ", width=terminal_width())]
    return "\n".join(parts)


def stack_table(lines: Sequence[Sequence[str]], keys: int = 1) -> str:
    """Lay out rows in aligned columns; columns beyond the width go into further tables that repeat the first `keys`
    columns.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = terminal_width() - sum(width + 2 for width in widths[:keys])
    groups, used = [], room
    for column in range(keys, len(widths)):
        if not groups or used + widths[column] > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += widths[column] + 2
    tables = [[[*line[:keys], *(line[column] for column in group)] for line in lines] for group in groups]
    return "\n\n".join(align_columns(table) for table in tables)
