"""The page's ledger: every statement with its difference, both intervals, its control and its power."""

import polars as pl

from pipelines.report import markup, prose
from pipelines.report.claims import Claim
from pipelines.statistics.numbers import change

TITLES = {
    "core": "Statements about SFT, OPD, RLVR and the matched control",
    "objectives": "Statements about the objectives",
    "interventions": "Statements about confined training",
    "controls": "Statements with one thing matched at a time",
    "steering": "Statements about what is done when a guard-rail trips",
}
HEADING = (
    "claim",
    "verdict",
    "difference [95 % t, decides]",
    "control's difference [95 % t]",
    "paper",
    "bootstrap over seeds [95 %]",
    "size (sd)",
    "found with 80 % power",
    "seeds",
    "same sign by parameters",
    "numbers from",
    "how to read it",
)
TOLD = (
    "The Student-t interval over seeds decides, of three seeds or more; that of an accuracy has the errors over "
    "samples and problems in it too. Seeds that are equal up to rounding decide nothing. The percentile bootstrap over "
    "seeds stands beside it and decides nothing: of three seeds it runs from the smallest to the largest difference "
    "and covers the mean in 75 % of cases (83 % of five), where it says 95 %. Size is the mean difference over the "
    "standard deviation of the paired differences. Found with 80 % power: the smallest difference that so many seeds "
    "with this spread would show at 5 %."
)


def ledger(decided: pl.DataFrame) -> str:
    """One table per suite that has verdicts."""
    found = [(title, rows) for suite, title in TITLES.items() if (rows := prose.of_suite(decided, suite))]
    tables = [
        f'<div class="verdicts">{markup.table(title, HEADING, [line(*pair) for pair in rows], raw=(1,))}</div>'
        for title, rows in found
    ]
    return markup.paragraph(f"{TOLD} {prose.bootstrapped(decided)}") + "\n".join(tables)


def line(claim: Claim, row: prose.Row) -> tuple[str, ...]:
    unit = claim.metric.unit
    boot = "-"
    if row["boot_low"] is not None:
        boot = change(row["effect"], row["boot_low"], row["boot_high"], unit)
    return (
        row["claim"],
        markup.badge(prose.status(row)),
        change(row["effect"], row["low"], row["high"], unit),
        control(claim, row),
        row["paper"],
        boot,
        "-" if row["size"] is None else f"{row['size']:+.1f}",
        "-" if row["detectable"] is None else change(row["detectable"], None, None, unit).lstrip("+"),
        str(row["seeds"]),
        {True: "yes", False: "no", None: "-"}[row["same_sign_weighted"]],
        row["metric"],
        row["note"],
    )


def control(claim: Claim, row: prose.Row) -> str:
    """The control's difference, what it says of a claim that holds, and what it is; "-" without one."""
    if row["control"] is None:
        return "-"
    effect = change(row["control_effect"], row["control_low"], row["control_high"], claim.metric.unit)
    says = f": {row['control_says']}" if row["control_says"] else ""
    return f"{effect}{says} ({row['control']})"
