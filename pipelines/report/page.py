"""One study as a self-contained HTML page: no request, whole without its script, on paper, a phone or a wide screen."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import polars as pl

from pipelines.paper.section import section
from pipelines.paper.suites import SUITES
from pipelines.report import exhibits, grids, markup, prose, questions
from pipelines.report.adaptive import tones
from pipelines.report.arms import ARMS, BY_KEY
from pipelines.report.findings import findings
from pipelines.report.ledger import ledger
from pipelines.statistics import bounds, inventory, power
from pipelines.statistics.exclusions import exclusions, listed
from pipelines.statistics.headline import headline
from pipelines.statistics.means import means
from pipelines.statistics.verdicts import verdicts
from pipelines.store.objects import Store

SECTIONS = (
    ("findings", "Findings"),
    ("arms", "The arms"),
    ("headline", "Headline numbers"),
    ("figures", "Table 1 and Figures 2 to 9 of the paper, from these runs"),
    *((suite.name, suite.title) for suite in SUITES),
    ("regimes", "Which regime each run is in"),
    ("predictions", "Does early locking predict accuracy?"),
    ("sizes", "Sizes and families"),
    ("verdicts", "Every verdict"),
    ("means", "By weighting, role and layer"),
    ("evaluation", "Accuracy before and after"),
    ("missing", "Values that do not exist"),
    ("bounds", "How exact the numbers are"),
    ("limits", "How to read this, and limits"),
    ("provenance", "Provenance"),
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LIMITS = """\
Intervals are 95 % Student-t intervals over seeds, paired by seed where two arms are compared. They are not corrected
for the number of statements: about one in twenty would exclude zero by chance. The percentile bootstrap over seeds is
beside them in the list of verdicts and decides nothing: of three seeds its 95 % cover 75 %. An interval of accuracies
that decides has the errors over samples and problems in it too.

The level of these intervals is that of normal differences, and of differences of accuracies. Of strongly skewed ones
(1 - Exp(1), simulated) three seeds decide 10.9 % of true nulls on the long tail's far side, where 2.5 % is nominal; no
other interval that was tried mends this and still finds normal differences (pipelines/report/intervals.py).

Fewer than three seeds decide nothing, nor do seeds that are equal up to rounding, which copies of a run are and
independent runs are not. Runs with the weights of another seed, and runs whose rows end before they do, are left out.

A verdict holds if its interval lies wholly on the claimed side, fails if wholly on the other, and is undecided
otherwise. Undecided is not evidence of equality.

Means are over the matrices that have a value. A matrix without one (see the table of missing values) is left out, which
can differ between arms.

Every projection matrix of the decoder counts once, whatever its size; the paper's trajectories use attention matrices
only. The share of unchanged weights is weighted by parameter count. Both weightings of every metric stand side by side
above.

The bf16 view is what would be served; the master view has the precision that was trained. Rounding alone can imitate a
falling stable rank and a gradual locking.

The models are far smaller than the paper's 8B and train for far fewer steps: orders are compared, not levels.
"""


def page(
    study: str, tables: Mapping[str, pl.LazyFrame], *, provenance: Mapping[str, str], store: Store | None = None
) -> str:
    """The page of `study`. `tables`: lake tables filtered to the study; `provenance`: what to state, as label to text;
    `store`: where the weights are that figure 3 maps.

    Every conclusion is generated from the verdict rows of the same tables.
    """
    decided = verdicts(study, tables)
    excluded = listed(exclusions(tables))
    gone = markup.paragraph(f"{excluded[0].upper()}{excluded[1:]}.") if excluded else ""
    bodies = {
        "findings": findings(decided) + gone,
        "arms": arms(tables),
        "headline": exhibits.numbers(headline(study, tables)),
        "figures": section(tables, decided, store),
        **{suite.name: exhibits.varied(suite, grids.rows(study, suite, tables), decided) for suite in SUITES},
        "regimes": questions.regimes(tables["regime"]) if "regime" in tables else "",
        "predictions": questions.predicted(tables["predictions"].collect()) if "predictions" in tables else "",
        "sizes": questions.sizes(study, tables),
        "verdicts": ledger(decided),
        "means": exhibits.weightings(means(study, tables), decided),
        "evaluation": exhibits.accuracy(inventory.evaluations(tables), power.power(tables)),
        "missing": exhibits.missing(inventory.missing(tables)),
        "bounds": exhibits.exactness(bounds.relative(tables)),
        "limits": markup.items(" ".join(text.split()) for text in LIMITS.split("\n\n")),
        "provenance": markup.facts(provenance),
    }
    title = f"Weight geometry of SFT, OPD and RLVR: study {study}"
    shown = [(key, name) for key, name in SECTIONS if bodies[key]]
    main = "\n".join(markup.section(key, name, bodies[key]) for key, name in shown)
    return document(title, introduction(tables, provenance, shown), main)


def document(title: str, header: str, main: str) -> str:
    """A self-contained HTML document: it may run what it brings, and ask for nothing."""
    css, script = (
        files("pipelines.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{css}{tones(main)}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>{escape(title)}</h1>
{header}
</header>
<main id="main" tabindex="-1">
{main}
</main>
<script>
{script}</script>
</body>
</html>
"""


def introduction(
    tables: Mapping[str, pl.LazyFrame], provenance: Mapping[str, str], sections: Sequence[tuple[str, str]]
) -> str:
    """What was run, in a paragraph, and the sections."""
    contents = markup.contents(sections)
    ran = inventory.runs(tables)
    if ran.is_empty():
        told = "The tables hold no runs of the arms that are put beside the paper: " + prose.listed(
            [arm.label for arm in ARMS], ", "
        )
        return markup.paragraph(f"{told}.", "lead") + contents
    names = [f"{BY_KEY[row['arm']].label} ({row['run_steps']} steps)" for row in ran.iter_rows(named=True)]
    named = prose.listed(names, ", ")
    seeds = prose.listed(sorted({seed for text in ran["seeds"] for seed in text.split(", ")}, key=int), ", ")
    plural = "seed" if seeds.isdigit() else "seeds"
    commit = f" at commit {provenance['commit']}" if "commit" in provenance else ""
    lead = (
        f"{named} were trained with {plural} {seeds}{commit}, and every weight matrix was compared with its start. "
        "This page puts the result beside the 8B runs of arXiv 2606.07082."
    )
    return markup.paragraph(lead, "lead") + contents


def arms(tables: Mapping[str, pl.LazyFrame]) -> str:
    """A table of the arms; nothing without runs."""
    ran, same = inventory.runs(tables), inventory.starts(tables)
    if ran.is_empty():
        return ""
    heading = ("arm", "what it is", "same start as OPD", "seeds", "steps", "learning rate", "optimizer")
    lines = [
        (
            BY_KEY[row["arm"]].label,
            BY_KEY[row["arm"]].meaning,
            {True: "yes", False: "no", None: "not known"}[same.get(row["arm"])],
            row["seeds"],
            row["run_steps"],
            row["learning_rate"],
            row["optimizer"],
        )
        for row in ran.iter_rows(named=True)
    ]
    arms_table = markup.table("The arms of this study", heading, lines)
    return f'<div class="arms">{arms_table}</div>'
