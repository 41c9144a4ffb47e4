"""The contract of every table: column names, types, units and meanings, declared once.

Fractions lie in [0, 1], angles are in degrees, norms are in weight units. `output` is the left singular space of the
[out, in] weight, `input` the right. A value that does not exist (a cut past min(m, n), a zero update) is null and its
row says why in `reason`; it is never NaN.
"""

from dataclasses import dataclass

import polars as pl

TEXT, INT, REAL, FLAG = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()


@dataclass(frozen=True)
class Column:
    """One column: its Polars type, its unit ("" for none) and what it means."""

    name: str
    dtype: pl.DataType
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table. `by` says which hive keys address a partition: a run (recipe, seed) or a study."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    by: tuple[str, ...] = ("recipe", "seed")

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({column.name: column.dtype for column in self.columns})


STUDY = Column("study", TEXT, "", "study the run belongs to")
RECIPE = Column("recipe", TEXT, "", "<study>.<arm>, or external.<name> for imported checkpoints")
SEED = Column("seed", INT, "", "seed of the run")
STEP = Column("step", INT, "optimizer steps", "optimizer step of the row; 0 is the start W0")
RUN_KEYS = (STUDY, RECIPE, SEED, STEP)
MATRIX_KEYS = (
    *RUN_KEYS,
    Column("matrix", TEXT, "", "Hugging Face parameter name without .weight"),
    Column("layer", INT, "", "decoder layer index; null outside the decoder"),
    Column("role", TEXT, "", "q k v o gate up down, or embed head norm bias other"),
)
DEPENDS_ON = (
    Column("dtype", TEXT, "", "dtype the snapshot stores: bf16 fp16 fp32 fp64"),
    Column("objective", TEXT, "", "objective that trained the run; null for imported checkpoints"),
    Column("optimizer", TEXT, "", "optimizer with its betas and eps"),
    Column("learning_rate", REAL, "", "peak learning rate"),
    Column("weight_decay", REAL, "", "decoupled weight decay"),
    Column("run_steps", INT, "optimizer steps", "steps of the whole run"),
    Column("method", TEXT, "", "algorithm and version that produced the row"),
)
VIEW = Column("view", TEXT, "", "bf16 (what is served) or master (stored dtype, where wider than bf16)")
SIDE = Column("side", TEXT, "", "output (left singular space) or input (right)")
REASON = Column("reason", TEXT, "", "why a value is null; null when nothing is missing")

TABLES = {
    table.name: table
    for table in (
        Table(
            "training",
            "one row per optimizer step",
            (
                *RUN_KEYS,
                Column("loss", REAL, "nats/token or advantage units", "objective, by its own normaliser"),
                Column("reward", REAL, "fraction", "mean rollout reward; null without rollouts"),
                Column("kl", REAL, "nats/token", "mean reverse KL(student || teacher); null without a teacher"),
                Column("grad_norm", REAL, "", "gradient norm before clipping, fp32"),
                Column("tokens", INT, "tokens", "tokens under the loss mask"),
                Column("learning_rate", REAL, "", "learning rate of the step"),
                Column("truncated", REAL, "fraction", "rollouts that hit the length limit without EOS"),
                Column("flat_groups", REAL, "fraction", "GRPO groups with zero reward variance"),
                Column("entropy", REAL, "nats/token", "mean student entropy under the loss mask"),
            ),
        ),
        Table(
            "timing",
            "wall and CPU seconds per phase; the only table outside the repeatability guarantee",
            (
                *RUN_KEYS,
                Column("phase", TEXT, "", "start, train, evaluate, snapshot, measure, dagster"),
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
            ),
        ),
        Table(
            "update_support",
            "D1: which weights changed at all",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("numel", INT, "weights", "number of weights"),
                Column(
                    "unchanged", REAL, "fraction", "weights equal to W0 in this view (+0 equals -0, NaN is changed)"
                ),
                Column("scope", TEXT, "", "projection (a decoder q k v o gate up down) or other"),
                *DEPENDS_ON,
            ),
        ),
        Table(
            "rotation",
            "D2: principal angles between the top-k singular subspaces of W0 and W_t",
            (
                *MATRIX_KEYS,
                VIEW,
                SIDE,
                Column("k", INT, "", "dimension of the subspaces"),
                Column("mean_deg", REAL, "deg", "mean of the k principal angles"),
                Column("rms_deg", REAL, "deg", "root mean square of the k principal angles"),
                Column("max_deg", REAL, "deg", "largest principal angle"),
                Column("angles_deg", pl.List(REAL), "deg", "the k angles, ascending"),
                Column("gap", REAL, "weight units", "sigma_k - sigma_{k+1} of W0: the cut's conditioning"),
                Column("error_deg", REAL, "deg", "rounding error bound of the algorithm at this cut"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "spectral_drift",
            "D3: normalised shift of the whole singular spectrum",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("nss", REAL, "", "||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2, sorted spectra"),
                Column("mirsky", REAL, "", "upper bound ||W_t - W0||_F / ||W0||_F (Mirsky)"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "localization",
            "D4: overlap of the changed weights with two masks of W0",
            (
                *MATRIX_KEYS,
                VIEW,
                Column(
                    "mask", TEXT, "", "principal (top alpha of |rank-r W0|) or low_magnitude (bottom alpha of |W0|)"
                ),
                Column("alpha", REAL, "fraction", "share of weights in the mask; also the chance overlap"),
                Column("rank", INT, "", "rank of the principal reconstruction; null for low_magnitude"),
                Column("overlap", REAL, "fraction", "|mask and changed| / |changed|"),
                Column("density", REAL, "fraction", "|changed| / n"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "update_spectrum",
            "D5, D6, D9: size and concentration of the update W_t - W0",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("frobenius", REAL, "weight units", "||W_t - W0||_F"),
                Column("relative_norm", REAL, "", "||W_t - W0||_F / ||W0||_F"),
                Column("spectral_norm", REAL, "weight units", "||W_t - W0||_2"),
                Column("stable_rank", REAL, "", "||dW||_F^2 / ||dW||_2^2"),
                Column("effective_rank", REAL, "", "exp entropy of p_i = sigma_i / sum sigma (Roy-Vetterli)"),
                Column("effective_rank_energy", REAL, "", "exp entropy of p_i = sigma_i^2 / sum sigma^2"),
                Column("energy_top16", REAL, "fraction", "share of ||dW||_F^2 in the 16 largest singular values"),
                Column(
                    "rounding_norm",
                    REAL,
                    "weight units",
                    "expected norm of this view's rounding noise: sqrt(sum ulp^2 / 12)",
                ),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "hill",
            "D7: Hill tail index of the update's singular values",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("k", INT, "", "number of top singular values used"),
                Column("hill", REAL, "", "[mean_{i<k} log(sigma_i / sigma_k)]^-1"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "locking",
            "D8: overlap of the update's top-k singular subspaces at two steps",
            (
                *MATRIX_KEYS,
                Column("step_other", INT, "optimizer steps", "the later step; step_other > step"),
                SIDE,
                Column("k", INT, "", "dimension of the subspaces"),
                VIEW,
                Column("similarity", REAL, "fraction", "Sim_k = ||V_k(step)' V_k(step_other)||_F^2 / k; chance is k/n"),
                Column("chance", REAL, "fraction", "expected similarity of two random subspaces, k/n"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
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
    )
}
