"""Tables over many runs."""

from pipelines.lake.schemas.column import FLAG, INT, REAL, REASON, RUN_KEYS, SEED, STUDY, TEXT, VIEW, Column, Table

TABLES = (
    Table(
        "verdicts",
        "comparisons between arms, with the paper's value beside ours",
        (
            STUDY,
            Column("suite", TEXT, "", "suite of the study that the claim is about"),
            Column(
                "section", TEXT, "", "whose claim: paper, control (OPD beside its matched offline twin), accuracy, ours"
            ),
            Column("claim", TEXT, "", "the statement that is tested"),
            Column("metric", TEXT, "", "table.column and view the numbers come from"),
            Column("left", TEXT, "", "recipe on the left of the comparison"),
            Column("right", TEXT, "", "recipe on the right, or the constant compared with"),
            Column("left_value", REAL, "metric's", "mean over seeds on the left"),
            Column("right_value", REAL, "metric's", "mean over seeds on the right"),
            Column("effect", REAL, "metric's", "mean over seeds of left - right, paired by seed"),
            Column(
                "low",
                REAL,
                "metric's",
                "lower end of the 95 % Student-t interval over seeds, of accuracies over samples and problems too; "
                "null for one seed, and for seeds that are equal up to rounding",
            ),
            Column("high", REAL, "metric's", "upper end of it"),
            Column(
                "boot_low",
                REAL,
                "metric's",
                "lower end of the 95 % percentile bootstrap over seeds, which decides nothing",
            ),
            Column("boot_high", REAL, "metric's", "upper end; of three seeds the two ends cover 75 %"),
            Column(
                "size",
                REAL,
                "",
                "effect / standard deviation of the paired differences; null for one or equal seeds",
            ),
            Column(
                "detectable", REAL, "metric's", "smallest effect these seeds find with 80 % power at 5 %; null like low"
            ),
            Column("holds", FLAG, "", "true or false where the interval decides; null is undecided"),
            Column("status", TEXT, "", "holds, fails or undecided; undecided too for fewer than three or equal seeds"),
            Column("seeds", INT, "", "number of paired seeds"),
            Column(
                "control", TEXT, "", "the contrast that stands beside the effect, in words; null where there is none"
            ),
            Column("control_effect", REAL, "metric's", "the same difference in that contrast"),
            Column("control_low", REAL, "metric's", "lower end of its interval; null like low"),
            Column("control_high", REAL, "metric's", "upper end of its interval; null like low"),
            Column(
                "control_says",
                TEXT,
                "",
                "of a claim that holds: remains, shrinks, not seen or turns (the same contrast with a confound "
                "matched); the same or differs (a contrast without the claimed cause); else null",
            ),
            Column("same_sign_weighted", FLAG, "", "whether the other weighting (table means) has the effect's sign"),
            Column("paper", TEXT, "", "what arXiv 2606.07082 reports for its 8B runs"),
            Column("note", TEXT, "", "why there is no verdict, which runs are left out and why, and how to read it"),
        ),
        by=("study",),
    ),
    Table(
        "means",
        "each run's headline metrics as means over decoder projections: all, per role and per layer, in two weightings",
        (
            STUDY,
            Column("metric", TEXT, "", "the headline's words"),
            Column("address", TEXT, "", "table.column, view and cuts the numbers come from"),
            Column("arm", TEXT, "", "recipe without its study"),
            SEED,
            Column("view", TEXT, "", "bf16 or master"),
            Column(
                "weighting", TEXT, "", "unweighted (every matrix counts once) or parameters (by its number of weights)"
            ),
            Column("role", TEXT, "", "q k v o gate up down; null is all of them"),
            Column("layer", INT, "", "decoder layer index; null is all of them"),
            Column(
                "value",
                REAL,
                "metric's",
                "the weighted or unweighted mean at the end, or at the share of training that metric names",
            ),
            Column("matrices", INT, "", "matrices that have a value"),
        ),
        by=("study",),
    ),
    Table(
        "scaling",
        "how the diagnostics move with the size and the family of the model",
        (
            STUDY,
            Column("metric", TEXT, "", "what is compared: a mean over projections at a share of the run"),
            Column("view", TEXT, "", "bf16 or master"),
            Column("arm", TEXT, "", "sft, opd or rlvr"),
            Column("factor", TEXT, "", "width (an exponent of the number of weights), depth or family (a ratio)"),
            Column("value", REAL, "", "mean over seeds of the exponent, or geometric mean of the ratio"),
            Column("low", REAL, "", "lower end of its 95 % interval over seeds; null for one seed"),
            Column("high", REAL, "", "upper end"),
            Column("misfit", REAL, "", "largest |log value - fit| of any seed's three widths; null for ratios"),
            Column("seeds", INT, "", "number of seeds that have all sizes"),
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
    Table(
        "regime",
        "which of SFT, OPD and RLVR a run is like, by its distance to their runs in every diagnostic",
        (
            *RUN_KEYS,
            VIEW,
            Column("budget", TEXT, "", "norm (where the updates are equally large) or end (each at its own end)"),
            Column("relative_norm", REAL, "", "mean ||W_t - W0||_F / ||W0||_F compared at; null at the ends"),
            Column("budget_step", REAL, "optimizer steps", "where the run first was that large, between snapshots too"),
            Column("diagnostic", TEXT, "", "what is compared; combined is the root mean square of all distances"),
            Column("scale", TEXT, "", "linear or log: what the spread and the distance are taken of"),
            Column("value", REAL, "diagnostic's", "of the run; null in combined rows and where reason says"),
            Column("reference", TEXT, "", "recipe of the reference, <study>.<arm>"),
            Column("reference_value", REAL, "diagnostic's", "mean over the reference's seeds, the run's own left out"),
            Column("spread", REAL, "scale's", "standard deviation over seeds, pooled over the references"),
            Column("distance", REAL, "spreads", "|value - reference_value| on the scale, over spread"),
            Column("confusion", REAL, "spreads", "largest distance of a reference run from the other seeds of its arm"),
            Column("verdict", TEXT, "", "SFT-like, OPD-like, RLVR-like or cannot tell, in this view at this budget"),
            Column("regime", TEXT, "", "what the verdicts of the views agree on at matched norm, else cannot tell"),
            REASON,
        ),
    ),
    Table(
        "transfer",
        "accuracy of a finished run on held-out problems of other families of its task",
        (
            *RUN_KEYS,
            Column("family", TEXT, "", "name of the family, such as operations-4"),
            Column("temperature", REAL, "", "sampling temperature; 0 is greedy"),
            Column("accuracy", REAL, "fraction", "exact-match accuracy of the bf16 weights"),
            Column(
                "stderr", REAL, "fraction", "standard error over problems (samples of a problem are averaged first)"
            ),
            Column("n", INT, "samples", "problems x samples"),
            Column("problems", INT, "problems", "held-out problems"),
            Column("samples", INT, "samples", "samples per problem"),
            Column(
                "overtimes",
                INT,
                "samples",
                "samples that count as wrong because their verification exceeded its limit; null in runs of earlier "
                "versions, which such a sample ended",
            ),
        ),
    ),
    Table(
        "predictions",
        "does early locking go with accuracy? Correlations over a study's runs",
        (
            STUDY,
            VIEW,
            Column("share", REAL, "fraction", "share of a run's steps at which Sim_16 to its end was read, input side"),
            Column("outcome", TEXT, "", "accuracy, gain (accuracy over the start's), or transfer"),
            Column("family", TEXT, "", "family of held-out problems; null for the task trained on"),
            Column("scope", TEXT, "", "pooled, one start (without the anchor), or within arms (arm means removed)"),
            Column("coefficient", TEXT, "", "pearson or spearman"),
            Column("correlation", REAL, "", "over runs; null where there are too few or one side does not vary"),
            Column("low", REAL, "metric's", "lower end of the 95 % bootstrap interval; null where n or seeds are few"),
            Column("high", REAL, "metric's", "upper end of it"),
            Column("p_value", REAL, "", "two-sided, by permuting outcomes; not corrected for the number of rows"),
            Column("runs", INT, "", "runs that have both"),
            Column("seeds", INT, "", "number of their seeds"),
            Column("note", TEXT, "", "how to read it"),
        ),
        by=("study",),
    ),
)
