"""Sentences made from verdict rows: the words follow the numbers, none is written in advance."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from pipelines.report.arms import label
from pipelines.report.claims import BY_TEXT, Claim, Section
from pipelines.statistics.intervals import DECIDING
from pipelines.statistics.metrics import END, Metric
from pipelines.statistics.numbers import change, quantity

Row = Mapping[str, Any]
FEW = {1: "one seed", 2: "two seeds"}
STATUSES = ("holds", "fails", "undecided", *FEW.values())
HEADINGS = {
    "holds": "What reproduces",
    "fails": "What does not reproduce",
    "undecided": "What these seeds do not decide",
    "toward": "What points the paper's way, without a verdict (fewer than three seeds)",
    "away": "What points the other way, without a verdict (fewer than three seeds)",
}
WORDS = {
    "holds": "holds",
    "fails": "fails",
    "undecided": "undecided",
    "toward": "points this way",
    "away": "points the other way",
}


# What a control says of a claim that holds, as a heading and inside a sentence that ends with its difference.
READINGS = {
    "the same": ("Holds, but its control shows the same", "holds, but its control shows the same"),
    "not seen": ("Holds, but is not seen with the confound matched", "holds, but is not seen once matched"),
    "turns": ("Holds, but turns round with the confound matched", "holds, but turns round once matched"),
    "shrinks": ("Holds, and is smaller with the confound matched", "holds, and is smaller once matched"),
    "remains": ("Holds, and remains with the confound matched", "holds, and remains once matched"),
    "differs": ("Holds, and its control does not show it", "holds, and its control does not show it"),
}


def status(row: Row) -> str:
    """holds, fails or undecided; "one seed" or "two seeds" where these are too few to decide."""
    return FEW[row["seeds"]] if row["seeds"] in FEW else row["status"]


def standing(claim: Claim, row: Row) -> str:
    """The status or, for fewer than three seeds, the way the numbers point: a key of `HEADINGS`."""
    if row["seeds"] >= DECIDING:
        return status(row)
    return "toward" if claim.judge(row["effect"], row["effect"], row["right_value"]) else "away"


def section(table: pl.DataFrame, name: Section, suite: str = "core") -> list[tuple[Claim, Row]]:
    """The rows of one section and suite with their claims, in the order of `claims.CLAIMS`."""
    return [(claim, row) for claim, row in of_suite(table, suite) if claim.section == name]


def of_suite(table: pl.DataFrame, suite: str) -> list[tuple[Claim, Row]]:
    """The rows of one suite with their claims, in the order of `claims.CLAIMS`."""
    pairs = ((BY_TEXT[row["claim"]], row) for row in table.iter_rows(named=True))
    return [(claim, row) for claim, row in pairs if claim.suite == suite]


def evidence(claim: Claim, row: Row) -> str:
    """Both sides and the difference with its interval: "OPD 86 %, RLVR 70 %; difference +16 [+10, +22] points"."""
    unit, right = claim.metric.unit, label(claim.right) if isinstance(claim.right, str) else "chance"
    both = f"{label(claim.left)} {quantity(row['left_value'], unit)}, {right} {quantity(row['right_value'], unit)}"
    return f"{both}; difference {change(row['effect'], row['low'], row['high'], unit)}"


def bullets(table: pl.DataFrame, wanted: str) -> list[str]:
    """One sentence per family of metrics on the paper's statements that stand as `wanted` (a key of `HEADINGS`)."""
    families: dict[str, dict[str, list[tuple[Claim, Row]]]] = {}
    for claim, row in section(table, "paper"):
        if standing(claim, row) == wanted:
            families.setdefault(claim.metric.family, {}).setdefault(claim.statement, []).append((claim, row))
    return [bullet(*told, with_change=wanted in ("fails", "undecided")) for told in families.items()]


def bullet(family: str, statements: Mapping[str, list[tuple[Claim, Row]]], *, with_change: bool) -> str:
    """ "rotation, input side: SFT > OPD (bf16 13 deg against 1.2 deg; master ...); OPD > RLVR (...). Paper: ..." """
    told = [f"{words} ({'; '.join(case(*pair, with_change) for pair in pairs)})" for words, pairs in statements.items()]
    paper = dict(next(iter(statements.values()))[0][0].metric.paper)
    reported = " / ".join(f"{label(arm)} {text}" for arm, text in paper.items()) or "not reported"
    return f"{family}: {'; '.join(told)}. Paper: {reported}."


def case(claim: Claim, row: Row, with_change: bool) -> str:
    metric = claim.metric
    when = "" if metric.at == END else f" at {100 * metric.at:g} %"
    right = f"{quantity(row['right_value'], metric.unit)}{'' if claim.baseline is None else ' at 5 %'}"
    values = f"{metric.view}{when} {quantity(row['left_value'], metric.unit)} against {right}"
    if not with_change:
        return values
    return f"{values}, difference {change(row['effect'], row['low'], row['high'], metric.unit)}"


def summary(table: pl.DataFrame) -> str:
    """One paragraph: how many statements of the paper were tested here, and how they came out."""
    rows = section(table, "paper")
    if not rows:
        return "The tables hold none of the comparisons the paper makes, so nothing is said about it."
    counts = {name: sum(status(row) == name for _, row in rows) for name in STATUSES}
    words = [f"{counts['holds']} hold", f"{counts['fails']} fail", f"{counts['undecided']} stay undecided"]
    text = f"{len(rows)} statements of the paper on SFT, OPD and RLVR, split by view, are tested. "
    few = {words: counts[words] for words in FEW.values() if counts[words]}
    if sum(few.values()) == len(rows):
        toward = sum(standing(claim, row) == "toward" for claim, row in rows)
        resting = f"A verdict takes three seeds; all rest on {listed(few)}, so none gets a verdict"
        return f"{text}{resting}; {toward} of {len(rows)} point the paper's way."
    words += [f"{count} rest on {seeds} and get no verdict" for seeds, count in few.items()]
    return f"{text}Over the seeds at hand, {', '.join(words[:-1])} and {words[-1]}."


def split_views(table: pl.DataFrame) -> list[str]:
    """Statements whose outcome depends on the view: where storage precision, not training, may be what is seen."""
    seen: dict[tuple[str, str, float], dict[str, str]] = {}
    for claim, row in section(table, "paper"):
        if claim.metric.view is not None:
            key = (claim.metric.family, claim.statement, claim.metric.at)
            seen.setdefault(key, {})[claim.metric.view] = WORDS[standing(claim, row)]
    return [
        f"{family}{'' if at == END else f' at {100 * at:g} %'}, {statement}: "
        f"{views['bf16']} in bf16, {views['master']} in master"
        for (family, statement, at), views in seen.items()
        if len(views) == 2 and views["bf16"] != views["master"]
    ]


def control(table: pl.DataFrame) -> str:
    """One paragraph on OPD beside its matched offline control."""
    rows = section(table, "control")
    if not rows:
        return "This study has no matched offline control, so on-policy and offline training are not told apart by it."
    apart = [claim.metric.words for claim, row in rows if row["holds"]]
    few = [status(row) for _, row in rows if row["seeds"] < DECIDING]
    if len(few) == len(rows):
        seeds = listed(sorted(set(few)))
        return f"The control was run with {seeds}: {len(rows)} differences are listed, none is decided."
    known = len(rows) - len(few)
    if not (same := known - len(apart)):
        return f"These seeds tell OPD from its matched offline control on each of {known} metrics: {listed(apart)}."
    text = f"On {same} of {known} metrics these seeds do not tell OPD from its matched offline control"
    return f"{text}; they do on {listed(apart)}." if apart else f"{text}."


def controlled(table: pl.DataFrame, suite: str = "core") -> list[str]:
    """What the controls say of the paper's statements that hold, one sentence per reading and control."""
    found: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for claim, row in section(table, "paper", suite):
        if row["control_says"] is not None:
            points = found.setdefault((row["control_says"], row["control"]), {}).setdefault(claim.statement, {})
            points.setdefault(point(claim.metric), []).append(claim.metric.view or "")
    told = []
    for reading, (heading, _) in READINGS.items():
        for (says, words), statements in found.items():
            if says == reading:
                listing = "; ".join(f"{statement} in {places(points)}" for statement, points in statements.items())
                told.append(f"{heading} ({words}): {listing}.")
    return told


def places(points: Mapping[str, list[str]]) -> str:
    """ "unchanged weights (bf16) and spectral drift (bf16, master)" """
    told = [(name, ", ".join(filter(None, views))) for name, views in points.items()]
    return listed([f"{name} ({views})" if views else name for name, views in told], ", ")


def point(metric: Metric) -> str:
    """A metric without its view: "Sim_16 to the final step at 25 %"."""
    return f"{metric.family or metric.words}{'' if metric.at == END else f' at {100 * metric.at:g} %'}"


def outcomes(table: pl.DataFrame, name: Section, suite: str) -> dict[str, list[str]]:
    """Every statement of a section and suite as a sentence with its numbers, by status; only those that occur."""
    found: dict[str, list[str]] = {}
    for claim, row in section(table, name, suite):
        told = [f"{claim.text}: {evidence(claim, row)}."]
        if row["control"] is not None:
            effect = change(row["control_effect"], row["control_low"], row["control_high"], claim.metric.unit)
            says = READINGS.get(row["control_says"], ("", "its control"))[1]
            told.append(f"{says[0].upper()}{says[1:]} ({row['control']}: {effect}).")
        if claim.section == "paper":
            told.append(f"Paper: {claim.paper}.")
        found.setdefault(status(row), []).append(" ".join(told))
    return {name: found[name] for name in STATUSES if name in found}


def weighting(table: pl.DataFrame) -> str:
    """One paragraph: whether the paper's statements come out with the same sign by either weighting of matrices."""
    rows = [(claim, row["same_sign_weighted"]) for claim, row in section(table, "paper")]
    known = [(claim, same) for claim, same in rows if same is not None]
    if not known:
        return "There is nothing to weight."
    other = [claim.text for claim, same in known if not same]
    text = f"Of {len(known)} statements of the paper, {len(known) - len(other)} have a difference of the same sign"
    return f"{text} by either weighting" + (f"; these have not: {listed(other)}." if other else ".")


def bootstrapped(table: pl.DataFrame) -> str:
    """One sentence: how many statements the bootstrap's narrower interval would decide otherwise."""
    rows = [(BY_TEXT[row["claim"]], row) for row in table.iter_rows(named=True) if row["size"] is not None]
    rows = [(claim, row) for claim, row in rows if row["seeds"] >= DECIDING]
    other = [c for c, r in rows if c.judge(r["boot_low"], r["boot_high"], r["right_value"]) is not r["holds"]]
    return f"By the bootstrap {len(other)} of {len(rows)} statements would come out otherwise."


def listed(words: Iterable[str], comma: str = "; ") -> str:
    *rest, last = words
    return f"{comma.join(rest)} and {last}" if rest else last


def scale(table: pl.DataFrame, metric: Metric) -> str:
    """OPD minus RLVR in the same metric, as a yardstick for the control's difference; "-" where it was not tested."""
    for claim, row in ((BY_TEXT[row["claim"]], row) for row in table.iter_rows(named=True)):
        if claim.metric == metric and (claim.left, claim.right) == ("opd", "rlvr"):
            return change(row["effect"], row["low"], row["high"], metric.unit)
    return "-"
