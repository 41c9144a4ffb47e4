"""Small pieces of HTML: escaped text, tables in scrollable regions, figures with accessible inline SVG."""

import re
from collections.abc import Iterable, Sequence
from html import escape


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</p>"


def items(texts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def section(key: str, title: str, *parts: str) -> str:
    body = "\n".join(parts)
    heading = f'<h2 id="{key}-title">{escape(title)}</h2>'
    return f'<section id="{key}" aria-labelledby="{key}-title">\n{heading}\n{body}\n</section>'


def details(summary: str, *parts: str, open: bool = False) -> str:
    """Parts that the reader unfolds, or folds where they begin open."""
    body = "\n".join(parts)
    return f"<details{' open' if open else ''}><summary>{escape(summary)}</summary>\n{body}\n</details>"


def badge(word: str) -> str:
    """A verdict as a word on its colour; the word carries the meaning."""
    return f'<span class="badge {word.replace(" ", "-")}">{escape(word)}</span>'


def table(caption: str, heading: Sequence[str], rows: Iterable[Sequence[str]], *, raw: Sequence[int] = ()) -> str:
    """A table that scrolls sideways, by keyboard too; the first cell heads its row. Columns `raw` are not escaped."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heading)
    lines = []
    for row in rows:
        cells = [text if place in raw else escape(text) for place, text in enumerate(row)]
        first, rest = cells[0], "".join(f"<td>{text}</td>" for text in cells[1:])
        lines.append(f'<tr><th scope="row">{first}</th>{rest}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(key: str, title: str, svg: str, alt: str, notes: Iterable[tuple[str, str]]) -> str:
    """An inline SVG with a text alternative, and under it the notes as (lead, text)."""
    words = "".join(f"<p><b>{escape(lead)}</b> {escape(text)}</p>" for lead, text in notes)
    return (
        f'<figure id="{key}"><h3>{escape(title)}</h3><div class="card">{inline(svg, key, alt)}</div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def inline(svg: str, key: str, alt: str) -> str:
    """`svg` for use inside a page: ids made unique by `key`, role and label on the root, width left to the page."""
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = svg.replace("url(#", f"url(#{key}-").replace('href="#', f'href="#{key}-')
    svg = re.sub(r"<svg\b", f'<svg role="img" aria-label="{escape(alt)}"', svg, count=1)
    return re.sub(r'(<svg\b[^>]*?) width="([\d.]+)" height="[\d.]+"', r'\1 style="max-width:\2px"', svg, count=1)
