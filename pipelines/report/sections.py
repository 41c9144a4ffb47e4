"""The folded tables of the page: suites, verdicts, regimes, predictions, sizes, accuracy, means, missing values,
bounds."""

from collections.abc import Mapping, Sequence

import polars as pl

from pipelines.regimes.prediction.predictions import SCOPES
from pipelines.regimes.prediction.text import describe_prediction, format_correlation
from pipelines.regimes.rows import COMBINED
from pipelines.report import markup, verdict_text
from pipelines.statistics import bounds, grids, inventory, means, power, scaling
from pipelines.statistics.exclusions import describe_exclusions, find_exclusions
from pipelines.statistics.numbers import PLUS_MINUS, format_change, format_quantity
from pipelines.studies.catalog import study_arg
from pipelines.studies.claim import Claim
from pipelines.studies.story import Story, Suite, Tables

MEANS = f"Mean {PLUS_MINUS} half-width of the 95 % interval over seeds; the mean alone for one seed, or for equal ones"
DIFFERENCES = "Left minus right with its 95 % Student-t interval over seeds, paired by seed"
VERDICTS = (
    "The Student-t interval over seeds decides, of three seeds or more; that of an accuracy has the errors over "
    "samples and problems in it too. A statement holds if its interval lies wholly on the claimed side, fails if "
    "wholly on the other, and is undecided otherwise, which is no evidence of equality. Seeds that are equal up to "
    "rounding decide nothing. Intervals are not corrected for the number of statements: about one in twenty would "
    "exclude zero by chance. The bootstrap over seeds decides nothing: of three seeds its 95 % cover 75 %."
)
LIMITS = (
    "The level of the intervals is that of normal differences, and of differences of accuracies. Of strongly skewed "
    "ones (1 - Exp(1), simulated) three seeds decide 10.9 % of true nulls on the long tail's far side, where 2.5 % is "
    "nominal (pipelines/statistics/intervals.py).",
    "Runs with the weights of another seed, and runs whose rows end before they do, are left out.",
    "Means are over the matrices that have a value. A matrix without one is left out, which can differ between arms.",
    "Every projection matrix of the decoder counts once, whatever its size; the share of unchanged weights is weighted "
    "by parameter count. Both weightings of every metric stand side by side above.",
    "The bf16 view is what would be served; the master view has the precision that was trained. Rounding alone can "
    "imitate a falling stable rank and a gradual locking.",
)
REGIMES = (
    "Every run is read off where it and all references had moved equally far, and put beside the reference runs of the "
    "other seeds, diagnostic by diagnostic, in units of their spread over seeds. Its regime is that of the nearest in "
    "both views. Where the views disagree, or two references are about as near, it cannot be told."
)


def render_arms(tables: Tables, story: Story) -> str:
    """Meaning and training settings of each core arm."""
    runs = inventory.describe_arms(tables, story.core)
    if runs.is_empty():
        return ""
    reference = runs["arm"][-1]
    same = inventory.compare_starts(tables, story.core, reference)
    heading = (
        "arm",
        "what it is",
        "control",
        f"same start as {story.label(reference)}",
        "seeds",
        "steps",
        "rate",
        "optimizer",
    )
    lines = [
        (
            story.label(row["arm"]),
            story.arm(row["arm"]).meaning or "-",
            story.label(story.arm(row["arm"]).control or "") or "-",
            {True: "yes", False: "no", None: "not known"}[same.get(row["arm"])],
            row["seeds"],
            row["run_steps"],
            row["learning_rate"],
            row["optimizer"],
        )
        for row in runs.iter_rows(named=True)
    ]
    return markup.details("The arms", markup.table("How each arm was trained", heading, lines), key="arms")


def render_suites(study: str, tables: Tables, story: Story, decided: pl.DataFrame) -> str:
    """A folded part for each suite that has a measured arm."""
    parts = []
    for suite in story.suites:
        table = grids.grid_rows(study, suite, tables, story)
        if not table.is_empty():
            parts.append(_render_suite(suite, table, story, decided))
    return "\n".join(parts)


def _render_suite(suite: Suite, table: pl.DataFrame, story: Story, decided: pl.DataFrame) -> str:
    own = [(claim, row) for claim, row in _pairs(decided, story) if claim.suite == suite.name]
    counts = verdict_text.count_statuses(pl.DataFrame([row for _, row in own], schema=decided.schema))
    verdicts = ", ".join(verdict_text.count_words(*pair) for pair in counts.items())
    heading, *lines = grids.format_grid(suite, table, story)
    body = [
        markup.paragraph(suite.meaning),
        markup.items(grids.describe_differences(suite, table)),
        markup.table(MEANS, heading, lines),
    ]
    return markup.details(f"{suite.title}{f' ({verdicts})' if verdicts else ''}", *body, key=f"suite-{suite.name}")


def render_verdicts(decided: pl.DataFrame, story: Story) -> str:
    """One folded table per status, and how many statements the bootstrap would decide otherwise."""
    if decided.is_empty():
        return ""
    parts = []
    for name, count in verdict_text.count_statuses(decided).items():
        rows = [(claim, row) for claim, row in _pairs(decided, story) if verdict_text.status_word(row) == name]
        heading = ["statement", "difference [95 % t]", "control"]
        heading += [story.source] if story.reported else []
        heading += ["how it was decided"]
        lines = [_verdict(claim, row, story) for claim, row in rows]
        key = f"verdicts-{name.replace(' ', '-')}"
        parts.append(
            markup.details(verdict_text.count_words(name, count), markup.table(DIFFERENCES, heading, lines), key=key)
        )
    return "".join(parts) + markup.details(
        "How statements are decided", markup.paragraph(VERDICTS), markup.paragraph(_describe_bootstrap(decided, story))
    )


def _pairs(decided: pl.DataFrame, story: Story) -> list[tuple[Claim, verdict_text.Row]]:
    return [(story.claim_by_text[row["claim"]], row) for row in decided.iter_rows(named=True)]


def _verdict(claim: Claim, row: verdict_text.Row, story: Story) -> tuple[str, ...]:
    unit, facts = claim.metric.unit, []
    if row["boot_low"] is not None:
        facts.append(f"bootstrap {format_change(row['effect'], row['boot_low'], row['boot_high'], unit)}")
    if row["size"] is not None:
        facts.append(f"size {row['size']:+.1f} sd")
    if row["detectable"] is not None:
        facts.append(f"found with 80 % power: {format_change(row['detectable'], None, None, unit).lstrip('+')}")
    if row["same_sign_weighted"] is False:
        facts.append("other sign when weighted by parameters")
    decided = f"{'; '.join(facts)}. {row['metric']}, {row['seeds']} seeds. {row['note']}" if facts else row["note"]
    published = (row["paper"],) if story.reported else ()
    return (
        f"{row['claim']}",
        verdict_text.describe_evidence(claim, row, story),
        verdict_text.describe_control(claim, row),
        *published,
        decided,
    )


def _describe_bootstrap(decided: pl.DataFrame, story: Story) -> str:
    pairs = [(c, r) for c, r in _pairs(decided, story) if r["size"] is not None and r["seeds"] > 2]
    other = sum(c.judge(r["boot_low"], r["boot_high"], r["right_value"]) is not r["holds"] for c, r in pairs)
    return f"By the bootstrap {other} of {len(pairs)} statements would come out otherwise." if pairs else ""


def render_regimes(rows: pl.LazyFrame, story: Story) -> str:
    """The verdict on each arm's runs and its distances, from the table `regime`; empty without rows."""
    combined = rows.filter(pl.col("diagnostic") == COMBINED, pl.col("budget") == "norm")
    last = pl.col("step") == pl.col("step").max().over("recipe", "seed")
    judged = combined.filter(last).sort("recipe", "seed", "view").collect()
    if judged.is_empty():
        return ""
    lines = []
    columns = [(view, arm) for view in ("bf16", "master") for arm in story.references]
    for (recipe,), runs in judged.group_by("recipe", maintain_order=True):
        counts = runs.unique(["seed", "regime"]).group_by("regime").agg(seeds=pl.len()).sort("seeds", descending=True)
        counted = ", ".join(f"{row['regime']} ({row['seeds']})" for row in counts.iter_rows(named=True))
        cells = [_distances(runs, view, arm) for view, arm in columns]
        lines.append((story.label(str(recipe).split(".", 1)[1]), counted, *cells))
    heading = ("arm", "regime (runs)", *(f"to {story.references[arm]}, {view}" for view, arm in columns))
    caption = "Root mean square distance to each reference, lowest and highest seed"
    return markup.details(
        "Which regime each run is in", markup.paragraph(REGIMES), markup.table(caption, heading, lines)
    )


def _distances(runs: pl.DataFrame, view: str, arm: str) -> str:
    own = runs.filter(pl.col("view") == view, pl.col("reference") == pl.format("{}.{}", "study", pl.lit(arm)))
    distances = own["distance"].drop_nulls()
    if distances.is_empty():
        return "-"
    low, high = f"{distances.min():.1f}", f"{distances.max():.1f}"
    return low if low == high else f"{low} to {high}"


def render_predictions(rows: pl.DataFrame) -> str:
    """Spearman's correlations of early locking with the outcome; empty without rows."""
    if not (summary := describe_prediction(rows)):
        return ""
    lines = []
    keys = ["view", "share", "outcome", "family"]
    for (view, share, outcome, family), part in rows.filter(coefficient="spearman").group_by(keys, maintain_order=True):
        by = {row["scope"]: row for row in part.iter_rows(named=True)}
        named = f"{outcome} {family}" if family else str(outcome)
        cells = [format_correlation(by[scope]) if scope in by else "-" for scope in SCOPES]
        lines.append((f"{view}, {100 * share:g} %", named, str(by["pooled"]["runs"]), *cells))
    caption = "Rank correlation of Sim_16 to the final step with the outcome [95 %; p]"
    table = markup.table(caption, ("Sim_16", "outcome", "runs", *SCOPES), lines)
    return markup.details("Does early locking predict accuracy?", markup.paragraph(summary), table)


def render_sizes(study: str, tables: Tables, story: Story) -> str:
    """Exponents and ratios over the sizes of a story; empty if fewer than two sizes are measured."""
    if story.sizes is None or (rows := scaling.scaling_rows(study, tables, story.sizes)).is_empty():
        return ""
    heading, *lines = scaling.format_grid(rows, story.sizes, story)
    table = markup.table("Estimate and 95 % interval over seeds", heading, lines)
    return markup.details("Sizes and families", markup.paragraph(story.sizes.caveat), table)


def render_accuracy(tables: Tables, story: Story) -> str:
    """Accuracy before and after training, and its power."""
    scores = inventory.accuracy_rows(tables, story.core)
    if scores.is_empty():
        return ""
    lines = [
        (
            story.label(row["arm"]),
            "greedy" if row["temperature"] == 0 else f"T={row['temperature']:g}",
            "-" if row["before"] is None else f"{100 * row['before']:.1f} %",
            format_quantity(row["after"], "percent", row["half"]),
            "-" if row["stderr"] is None else f"{100 * row['stderr']:.1f} points",
            f"{row['n']} ({row['problems']} x {row['samples']})",
            str(row["seeds"]),
        )
        for row in scores.iter_rows(named=True)
    ]
    heading = ("arm", "sampling", "before", "after", "s.e. of one run", "n (problems x samples)", "seeds")
    caption = f"Exact-match accuracy; after: mean over seeds {PLUS_MINUS} half-width of the 95 % interval"
    parts = [markup.table(caption, heading, lines)]
    reference = next((arm.control for arm in map(story.arm, story.core) if arm.control), story.core[0])
    powers = power.power_rows(tables, story.all_arms, reference)
    if not powers.is_empty():
        heading, *lines = power.format_grid(powers, story)
        meaning = (
            "Half-widths in points. Every run answers the same problems, so more seeds do not make an accuracy on the "
            "whole task more certain than its problems allow. The last column is the smallest difference from "
            f"{story.label(reference)} that these seeds would show at 5 % in 80 % of cases."
        )
        parts += [markup.paragraph(meaning), markup.table("Power", heading, lines)]
    return markup.details("Accuracy before and after, and its power", *parts)


def render_weightings(study: str, tables: Tables, story: Story) -> str:
    """Unweighted beside parameter-weighted means of the core arms, and each metric per role and layer."""
    table = means.mean_rows(study, tables, story.core)
    heading, *lines = means.compare_weightings(table, story)
    if not lines:
        return ""
    parts = [markup.table(MEANS, heading, lines)]
    for metric in means.METRICS:
        for key in ("role", "layer"):
            heading, *lines = means.split_by_key(table, metric, key, story)
            if lines:
                parts.append(markup.details(f"{metric.words}, by {key}", markup.table(MEANS, heading, lines)))
    return markup.details("By weighting, role and layer", *parts)


def render_missing(tables: Tables, story: Story) -> str:
    absent = inventory.count_missing(tables, story.all_arms)
    if absent.is_empty():
        return markup.details("Values that do not exist", markup.paragraph("Every value exists."))
    lines = [
        (f"{row['table']}, {row['view']}", row["reason"], f"{row['rows']} of {row['of']}")
        for row in absent.iter_rows(named=True)
    ]
    table = markup.table("Rows without a value, by reason", ("table and view", "reason", "rows"), lines)
    return markup.details("Values that do not exist", table)


def render_exactness(tables: Tables, story: Story) -> str:
    """The algorithms' error bounds at the end of training, relative to the values they bound."""
    table = bounds.relative_bounds(tables, story.all_arms)
    if table.is_empty():
        return ""
    meaning = (
        "Each of these values has a stored bound on the error of its algorithm. Bounds do not include the spread "
        "over seeds."
    )
    lines = [
        (
            row["quantity"],
            str(row["rows"]),
            *("-" if row[name] is None else format_quantity(row[name], "") for name in ("median", "largest")),
            str(row["vacuous"]),
            str(row["zero"]),
        )
        for row in table.iter_rows(named=True)
    ]
    heading = ("quantity", "values", "median bound / value", "largest", "left out: vacuous bound", "value is 0")
    return markup.details(
        "How exact the numbers are", markup.paragraph(meaning), markup.table("At the end of training", heading, lines)
    )


def render_limits(tables: Tables, story: Story) -> str:
    excluded = describe_exclusions(find_exclusions(tables, story.all_arms))
    return markup.details(
        "Reading and limits", markup.items([*LIMITS, *story.limits, *([f"{excluded}."] if excluded else [])])
    )


def render_provenance(facts: Mapping[str, str]) -> str:
    return markup.details("Provenance", markup.facts(facts))


def describe_unmeasured_suites(study: str, suites: Sequence[str], tables: Tables, story: Story) -> str:
    """One line with the command that runs the unmeasured suites of a study."""
    absent = [
        suite.name
        for suite in story.suites
        if suite.name in suites and grids.grid_rows(study, suite, tables, story).is_empty()
    ]
    if not absent:
        return ""
    rest = f" (or {', '.join(absent[1:])})" if len(absent) > 1 else ""
    return markup.paragraph(f"Not measured yet: opd study run {study_arg(study)} --suite {absent[0]}{rest}", "quiet")
