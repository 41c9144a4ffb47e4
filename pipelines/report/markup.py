"""Small pieces of HTML: escaped text, tables in scrollable regions, figures with accessible inline SVG."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

TOLD = "told: "  # begins the description of a mark whose value the page shows
VALUE, PARTS = re.compile(rf' aria-label="{TOLD}([^"]*)"'), re.compile(r' (?:aria-[a-z]+|role)="[^"]*"')

IDS, LINKS = re.compile(r'\bid="([^"]+)"'), re.compile(r'(url\(|href=")#([^")]+)')


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


def facts(told: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in told.items()) + "</dl>"


def contents(sections: Iterable[tuple[str, str]]) -> str:
    """Links to sections as (anchor, title)."""
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in sections)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


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


def figure(key: str, title: str, drawing: str, notes: Iterable[tuple[str, str]], *more: str, level: int = 3) -> str:
    """A figure with its heading, under it the notes as (lead, text), then `more`. drawing: what `card` gives, or ""."""
    words = "".join(f"<p><b>{escape(lead)}</b> {escape(text)}</p>" for lead, text in notes)
    heading = f"<h{level}>{escape(title)}</h{level}>"
    top = f'<div class="picture">{heading}{drawing}</div>'
    return f'<figure id="{key}">{top}<figcaption>{words}</figcaption>{"".join(more)}</figure>'


def card(svg: str, key: str, title: str, alt: str) -> str:
    """A picture in its frame, which scrolls sideways where it is narrow and takes the keyboard."""
    name = escape(f"{title}: picture")
    return f'<div class="card" role="group" tabindex="0" aria-label="{name}">{inline(svg, key, alt)}</div>'


def inline(svg: str, key: str, alt: str) -> str:
    """`svg` for use inside a page: ids unique by `key`, the same from run to run; role, label and a limit of width.

    What the renderer says of its parts is dropped, but for the values of marks (`figures.told`): data-told.
    """
    svg = VALUE.sub(r' data-told="\1"', svg)
    svg = PARTS.sub("", svg)
    # The renderer numbers ids through all that one process draws, so that they would differ from run to run.
    numbers = {name: f"{key}-{place}" for place, name in enumerate(dict.fromkeys(IDS.findall(svg)))}
    svg = IDS.sub(lambda found: f'id="{numbers[found[1]]}"', svg)
    svg = LINKS.sub(lambda found: f"{found[1]}#{numbers[found[2]]}", svg)
    svg = re.sub(r"<svg\b", f'<svg role="img" aria-label="{escape(alt)}"', svg, count=1)
    return re.sub(r'(<svg\b[^>]*?) width="([\d.]+)" height="[\d.]+"', r'\1 style="--width:\2px"', svg, count=1)
