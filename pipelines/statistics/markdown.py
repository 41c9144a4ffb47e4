"""Markdown of texts that others wrote: names, labels, units. Dagster's UI shows it, with links and remote images."""

import re
from collections.abc import Sequence

from pipelines.store.names import escape_text

# `<` opens a tag before a letter and these signs only, `_` emphasis outside a word only.
SPECIAL = re.compile(r"[\\`*\[\]&|~]|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape_markdown(text: str) -> str:
    """One line that Markdown shows as it is written: no tag, link, image, emphasis, code, entity or table cell.

    An address stays text; the UI may link it to itself.
    """
    return SPECIAL.sub(r"\\\g<0>", escape_text(text))


def render_table(lines: Sequence[Sequence[str]], rule: Sequence[str]) -> str:
    """Rows of text cells, the first a heading, as a Markdown table; `rule` aligns its columns."""
    heading, *body = [[escape_markdown(text) for text in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heading, rule, *body])
