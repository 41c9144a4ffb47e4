"""HTML elements of the page: escaped text, tables, folded parts, verdict badges."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</p>" if text else ""


def items(texts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def section(key: str, title: str, *parts: str) -> str:
    body = "\n".join(parts)
    heading = f'<h2 id="{key}-title">{escape(title)}</h2>'
    return f'<section id="{key}" aria-labelledby="{key}-title">\n{heading}\n{body}\n</section>'


def details(summary: str, *parts: str, key: str = "", open: bool = False) -> str:
    """A foldable element."""
    body = "\n".join(parts)
    anchor = f'<span id="{key}"></span>' if key else ""  # inside, so that a link to it unfolds the part
    return f"<details{' open' if open else ''}><summary>{escape(summary)}</summary>\n{anchor}{body}\n</details>"


def facts(values: Mapping[str, str]) -> str:
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in values.items()) + "</dl>"
    )


def contents(sections: Iterable[tuple[str, str]]) -> str:
    """Links to sections as (anchor, title)."""
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in sections)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def badge(word: str, target: str = "") -> str:
    """A verdict as a coloured word, with a link if there is a target."""
    kind = word.split(" ", 1)[-1] if word[:1].isdigit() else word
    name = {"hold": "holds", "fail": "fails"}.get(kind, kind).replace(" ", "-")
    tag, link = ("a", f' href="#{target}"') if target else ("span", "")
    return f'<{tag} class="badge {escape(name)}"{link}>{escape(word)}</{tag}>'


def table(
    caption: str,
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    raw: Sequence[int] = (),
    kind: str = "",
    columns: int = 0,
) -> str:
    """A table with row headings in the first cell. On a narrow page each row becomes a block.

    Columns `raw` are not escaped. columns: keep the columns on a narrow page, at most four in a row.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heading)
    lines = []
    for row in rows:
        cells = [text if place in raw else escape(text) for place, text in enumerate(row)]
        rest = "".join(
            f'<td data-head="{escape(name)}">{text}</td>' for name, text in zip(heading[1:], cells[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{cells[0]}</th>{rest}</tr>')
    named = f' class="{kind}" style="--columns:{min(columns, 4)}"' if kind else ""
    top = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table{named}>{top}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(key: str, title: str, picture: str, meaning: str, *more: str, level: int = 3) -> str:
    """A picture with its title, one line of meaning, and folded parts. picture: HTML of `vega.embed_chart`."""
    words = f"<h{level}>{escape(title)}</h{level}>{paragraph(meaning)}"
    return f'<figure id="{key}"><figcaption>{words}</figcaption>{picture}{"".join(more)}</figure>'


def notes(pairs: Iterable[tuple[str, str]]) -> str:
    """Paragraphs with a bold lead; empty paragraphs are left out."""
    return "".join(f"<p><b>{escape(lead)}</b> {escape(text)}</p>" for lead, text in pairs if text)
