"""The page's findings: what holds, what its control says of it, what fails and what is undecided, in sentences."""

from collections.abc import Sequence
from html import escape

import polars as pl

from pipelines.report import markup, prose
from pipelines.report.arms import label
from pipelines.report.claims import Claim
from pipelines.statistics.numbers import change, quantity

APART = {"holds": "differs", "undecided": "not told apart"}


def findings(decided: pl.DataFrame) -> str:
    """About the arms of core; `varied` is about the other suites."""
    parts = [markup.paragraph(prose.summary(decided), "lead")]
    for standing, heading in prose.HEADINGS.items():
        sentences = prose.bullets(decided, standing)
        if sentences:
            parts += [f"<h3>{escape(heading)}</h3>", markup.items(sentences)]
    controlled = prose.controlled(decided)
    if controlled:
        words = (
            "A control repeats a contrast with something matched that the paper's runs leave free, or without what is "
            "said to cause it. What it says of the statements that hold:"
        )
        parts += ["<h3>What the controls say of it</h3>", markup.paragraph(words), markup.items(controlled)]
    split = prose.split_views(decided)
    if split:
        words = (
            "These come out differently on bf16 weights and on master weights, so storage precision has a part in them."
        )
        parts += ["<h3>What depends on the view</h3>", markup.paragraph(words), markup.items(split)]
    parts += ["<h3>What the matched control shows</h3>", markup.paragraph(prose.control(decided))]
    matched = prose.section(decided, "control")
    if matched:
        caption = "OPD beside offline cross-entropy with the same start, learning rate, steps and batch"
        parts.append(apart(decided, matched, caption))
    scored = prose.section(decided, "accuracy")
    if scored:
        parts += [
            "<h3>Accuracy</h3>",
            markup.items(f"{c.text}: {prose.status(r)}. {prose.evidence(c, r)}." for c, r in scored),
        ]
    return "\n".join(parts)


def apart(decided: pl.DataFrame, rows: Sequence[tuple[Claim, prose.Row]], caption: str) -> str:
    """A table of differences between two arms, metric by metric, with OPD - RLVR as a yardstick."""
    lines = [
        (
            claim.metric.words,
            quantity(row["left_value"], claim.metric.unit),
            quantity(row["right_value"], claim.metric.unit),
            change(row["effect"], row["low"], row["high"], claim.metric.unit),
            prose.scale(decided, claim.metric),
            markup.badge(APART.get(prose.status(row), prose.status(row))),
        )
        for claim, row in rows
    ]
    claim = rows[0][0]
    left, right = label(claim.left), label(str(claim.right))
    heading = ("metric", left, right, f"{left} - {right} [95 %]", "OPD - RLVR, for scale", "verdict")
    return f'<div class="numbers">{markup.table(caption, heading, lines, raw=(5,))}</div>'
