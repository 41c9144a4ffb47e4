"""Sentences made from verdict rows."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipelines.statistics.intervals import DECIDING
from pipelines.statistics.numbers import format_change, format_quantity
from pipelines.studies.claim import Claim
from pipelines.studies.story import Story

Row = Mapping[str, Any]
FEW = {1: "one seed", 2: "two seeds"}
STATUSES = ("holds", "fails", "undecided", *FEW.values())
MOST_PAIRS = 3  # of arms that the first sentence names
PLURAL = {"holds": "hold", "fails": "fail"}
# The reading of a control for a claim that holds, followed by the difference of the control.
READINGS = {
    "the same": "its control shows the same",
    "not seen": "not seen once matched",
    "turns": "turns round once matched",
    "shrinks": "smaller once matched",
    "remains": "remains once matched",
    "differs": "its control does not show it",
}


def status_word(row: Row) -> str:
    """holds, fails or undecided; "one seed" or "two seeds" if there are too few to decide."""
    return FEW.get(row["seeds"]) or row["status"]


def count_statuses(decided: pl.DataFrame) -> dict[str, int]:
    """Count the claims by status, in the order of `STATUSES`, without zeros."""
    counts = dict.fromkeys(STATUSES, 0)
    for row in decided.iter_rows(named=True):
        counts[status_word(row)] += 1
    return {name: count for name, count in counts.items() if count}


def count_words(name: str, count: int) -> str:
    """ "35 hold", "1 fails", "6 with two seeds" """
    if name in FEW.values():
        return f"{count} with {name}"
    return f"{count} {name if count == 1 else PLURAL.get(name, name)}"


def describe_evidence(claim: Claim, row: Row, story: Story) -> str:
    """Both sides and the difference with its interval: "OPD 86 %, RLVR 70 %; difference +16 [+10, +22] points"."""
    unit = claim.metric.unit
    right = story.label(claim.right) if isinstance(claim.right, str) else claim.constant
    left = f"{story.label(claim.left)} {format_quantity(row['left_value'], unit)}"
    other = f"{f'{right} ' if right else ''}{format_quantity(row['right_value'], unit)}"
    return f"{left}, {other}; difference {describe_effect(claim, row)}"


def describe_effect(claim: Claim, row: Row) -> str:
    return format_change(row["effect"], row["low"], row["high"], claim.metric.unit)


def describe_control(claim: Claim, row: Row) -> str:
    """The reading, difference and name of the control; "-" without one."""
    if row["control"] is None:
        return "-"
    difference = format_change(row["control_effect"], row["control_low"], row["control_high"], claim.metric.unit)
    says = f"{READINGS[row['control_says']]}: " if row["control_says"] else ""
    return f"{says}{difference} ({row['control']})"


def describe_result(decided: pl.DataFrame, story: Story) -> str:
    """The result of a study whose story has no result sentence: in how many measures each pair of arms differs."""
    pairs = [(story.claim_by_text[row["claim"]], row) for row in decided.iter_rows(named=True)]
    if not story.default_claims:
        return "The story of this study makes no statements."
    if not pairs:
        return "No two arms are measured yet, so nothing is compared."
    if all(row["seeds"] < DECIDING for _, row in pairs):
        seeds = max(row["seeds"] for _, row in pairs)
        many = f"{FEW[seeds]} {'is' if seeds == 1 else 'are'} measured"
        return f"{len(pairs)} differences between arms are listed. A verdict takes three seeds; {many}."
    sentences = []
    by_pair: dict[tuple[str, str], list[Row]] = {}
    for claim, row in pairs:
        if claim.kind == "differs" and claim.suite == "core" and isinstance(claim.right, str):
            by_pair.setdefault((claim.left, claim.right), []).append(row)
    for (left, right), rows in by_pair.items():
        apart = sum(row["holds"] is True for row in rows)
        matched = " (its matched control)" if story.arm(left).control == right else ""
        sentences.append(
            f"{story.label(left)} differs from {story.label(right)}{matched} in {apart} of {len(rows)} measures"
        )
    if not sentences or len(sentences) > MOST_PAIRS:
        counts = count_statuses(decided)
        return f"Of {decided.height} statements {', '.join(count_words(*pair) for pair in counts.items())}."
    return f"{'; '.join(sentences)}."
