"""Tables that a run writes about its training."""

from pipelines.lake.schemas.column import INT, REAL, RUN_KEYS, TEXT, Column, Table

SIGNAL = (
    Column("kl", REAL, "nats/token", "KL(student || teacher): exact where the vocabulary was scored, else sampled"),
    Column("entropy", REAL, "nats/token", "student entropy"),
    Column("teacher_entropy", REAL, "nats/token", "teacher entropy"),
    Column("student_mass", REAL, "fraction", "student's mass on the estimator's top-k, else on its own 16 likeliest"),
    Column("teacher_mass", REAL, "fraction", "teacher's mass on the same tokens"),
    Column("overlap", REAL, "fraction", "share of the student's top-k that is in the teacher's"),
)

TABLES = (
    Table(
        "training",
        "one row per optimizer step",
        (
            *RUN_KEYS,
            Column("loss", REAL, "nats/token or advantage units", "objective, by its own normaliser"),
            Column("reward", REAL, "fraction", "mean rollout reward; null without rollouts"),
            Column("grad_norm", REAL, "", "gradient norm of what trains, before clipping and after a projection, fp32"),
            Column("tokens", INT, "tokens", "tokens under the loss mask"),
            Column("sequences", INT, "sequences", "sequences with a token under the loss mask"),
            Column("learning_rate", REAL, "", "learning rate of the step"),
            Column("truncated", REAL, "fraction", "rollouts that hit the length limit without EOS"),
            Column(
                "overtimes",
                INT,
                "responses",
                "rollouts that count as wrong because their verification exceeded its limit of time or memory; null "
                "without rollouts of its own, and in runs of earlier versions, which such a response ended",
            ),
            Column("flat_groups", REAL, "fraction", "GRPO groups with zero reward variance"),
            *SIGNAL,
            Column("staleness", REAL, "optimizer steps", "mean age of the weights that drew the rollouts"),
            Column("mismatch_max", REAL, "nats", "largest |log p| difference of rollout and trainer on own samples"),
            Column("mismatch_outside", REAL, "fraction", "tokens whose probability ratio of the two leaves 0.9 to 1.1"),
            Column("ess", REAL, "fraction", "normalised effective sample size of the importance weights"),
            Column("clipped", REAL, "fraction", "tokens whose importance weight was cut, or ratio clipped"),
            Column("opd_loss", REAL, "", "OPD term of a mix, before its coefficient"),
            Column("rlvr_loss", REAL, "", "RLVR term of a mix, before its coefficient"),
            Column("opd_grad_norm", REAL, "", "gradient norm of the OPD term of a mix, before its coefficient"),
            Column("rlvr_grad_norm", REAL, "", "gradient norm of the RLVR term of a mix, before its coefficient"),
            Column("grad_cosine", REAL, "", "cosine between the gradients of a mix's terms; 0 where one is zero"),
            Column("opd_rms", REAL, "nats", "root mean square of a mix's OPD advantages, log s - log T of the token"),
            Column("rlvr_rms", REAL, "", "root mean square of a mix's RLVR advantages"),
            Column(
                "removed",
                REAL,
                "fraction",
                "share of the gradient's norm over the confined matrices that the constraint removes, "
                "sqrt(1 - |P g|^2 / |g|^2); null without one",
            ),
            Column(
                "leaked_step",
                REAL,
                "fraction",
                "|d - P(d)| / |d| of the step's update d over the confined matrices, before fp32 rounding where the "
                "constraint confines steps; null without one",
            ),
            Column("leaked", REAL, "fraction", "the same of the whole update since the run began"),
            Column("tripped", INT, "optimizer steps", "step at which the reaction's guard tripped; null before it"),
            Column("noise", REAL, "fraction", "norm of the noise that a reaction added over that of the step"),
        ),
    ),
    Table(
        "positions",
        "what a step's responses were like, by position; twenty steps of a run",
        (
            *RUN_KEYS,
            Column("position", INT, "tokens", "first response position of the row, from 0"),
            Column("position_end", INT, "tokens", "first position past the row; one position a row up to 16"),
            Column("tokens", INT, "tokens", "tokens under the loss mask at these positions"),
            *SIGNAL,
        ),
    ),
    Table(
        "sync",
        "one row per push of weights into a rollout engine of its own; the probe compares both sides' log p",
        (
            *RUN_KEYS,
            Column("engine", TEXT, "", "hf or vllm"),
            Column("engine_release", TEXT, "", "version of the engine's package"),
            Column("tensors", INT, "tensors", "tensors pushed"),
            Column("bytes", INT, "bytes", "bytes pushed"),
            Column("digest", TEXT, "", "SHA-256 of the served weights as bf16, sorted by name"),
            Column("tokens", INT, "tokens", "tokens of the probe; null before there is one"),
            Column("mean_abs", REAL, "nats", "mean |log p(engine) - log p(trainer)|"),
            Column("p95", REAL, "nats", "its 95th percentile"),
            Column("p99", REAL, "nats", "its 99th percentile"),
            Column("maximum", REAL, "nats", "its maximum"),
            Column("outside", REAL, "fraction", "tokens whose probability ratio leaves 0.9 to 1.1"),
        ),
    ),
    Table(
        "timing",
        "wall and CPU seconds per phase; the only table outside the repeatability guarantee",
        (
            *RUN_KEYS,
            Column(
                "phase",
                TEXT,
                "",
                "start, evaluate, snapshot, measure, base (part of measure), dagster; of training: sample, verify, "
                "teacher, forward, loss, backward, update, sync, train (the rest)",
            ),
            Column("wall_s", REAL, "s", "wall-clock seconds"),
            Column("cpu_s", REAL, "s", "CPU seconds of the process that did the work"),
        ),
    ),
    Table(
        "evaluation",
        "accuracy on held-out problems",
        (
            *RUN_KEYS,
            Column("temperature", REAL, "", "sampling temperature; 0 is greedy"),
            Column("accuracy", REAL, "fraction", "exact-match accuracy"),
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
)
