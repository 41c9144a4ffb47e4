"""Tables over many runs."""

from pipelines.lake.schemas.column import FLAG, INT, REAL, STUDY, TEXT, Column, Table

TABLES = (
    Table(
        "verdicts",
        "comparisons between arms, with the paper's value beside ours",
        (
            STUDY,
            Column("claim", TEXT, "", "the statement that is tested"),
            Column("metric", TEXT, "", "table.column and view the numbers come from"),
            Column("left", TEXT, "", "recipe on the left of the comparison"),
            Column("right", TEXT, "", "recipe on the right, or the constant compared with"),
            Column("left_value", REAL, "metric's", "mean over seeds on the left"),
            Column("right_value", REAL, "metric's", "mean over seeds on the right"),
            Column("effect", REAL, "metric's", "mean over seeds of left - right, paired by seed"),
            Column("low", REAL, "metric's", "lower end of the 95 % interval over seeds; null for one seed"),
            Column("high", REAL, "metric's", "upper end of the 95 % interval over seeds; null for one seed"),
            Column("holds", FLAG, "", "true or false where the interval decides; null is undecided"),
            Column("seeds", INT, "", "number of paired seeds"),
            Column("paper", TEXT, "", "what arXiv 2606.07082 reports for its 8B runs"),
            Column("note", TEXT, "", "how to read it"),
        ),
        by=("study",),
    ),
    Table(
        "bench",
        "what the engine costs and how exact it is, beside the goal (`make bench`)",
        (
            Column("figure", INT, "", "number of the figure to reach"),
            Column("case", TEXT, "", "what was measured: an update, a set of diagnostics, a tool"),
            Column("quantity", TEXT, "", "what of it"),
            Column("value", REAL, "unit's", "the measured value; null where there is none, and note says why"),
            Column("unit", TEXT, "", "s (CPU seconds unless quantity says otherwise), x (times), deg, or none"),
            Column("goal", TEXT, "", "the bounds to reach; empty where the value is only reported"),
            Column("met", FLAG, "", "whether value is within goal; null without goal or value, or where undecided"),
            Column("note", TEXT, "", "how to read it"),
            Column("commit", TEXT, "", "commit of the source tree, with -dirty where it had changes"),
            Column("machine", TEXT, "", "processor, cores and BLAS threads of the bench"),
            Column("torch", TEXT, "", "version of torch"),
            Column("time", TEXT, "", "when the bench began, ISO 8601"),
        ),
        by=("commit",),
    ),
)
