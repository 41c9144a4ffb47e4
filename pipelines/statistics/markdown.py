"""Escape names, labels and units for Markdown. Dagster's UI renders Markdown with links and remote images."""

import re
from collections.abc import Sequence

from pipelines.store.names import escape_text

# `<` opens a tag before a letter and these signs only, `_` emphasis outside a word only.
SPECIAL = re.compile(r"[\\`*\[\]&|~]|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape_markdown(text: str) -> str:
    """Escape text into one line of Markdown without tags, links, images, emphasis, code, entities or table cells.

    A URL stays text; the UI may turn it into a link.
    """
    return SPECIAL.sub(r"\\\g<0>", escape_text(text))


def render_table(lines: Sequence[Sequence[str]], rule: Sequence[str]) -> str:
    """Rows of text cells, the first a heading, as a Markdown table; `rule` aligns its columns."""
    heading, *body = [[escape_markdown(text) for text in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heading, rule, *body])
