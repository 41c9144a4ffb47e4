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
    """One table. `by` says which hive keys address a partition: a run (recipe, seed), a study or a commit."""

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
SIGNAL = (
    Column("kl", REAL, "nats/token", "KL(student || teacher): exact where the vocabulary was scored, else sampled"),
    Column("entropy", REAL, "nats/token", "student entropy"),
    Column("teacher_entropy", REAL, "nats/token", "teacher entropy"),
    Column("student_mass", REAL, "fraction", "student's mass on the estimator's top-k, else on its own 16 likeliest"),
    Column("teacher_mass", REAL, "fraction", "teacher's mass on the same tokens"),
    Column("overlap", REAL, "fraction", "share of the student's top-k that is in the teacher's"),
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
                Column("grad_norm", REAL, "", "gradient norm before clipping, fp32"),
                Column("tokens", INT, "tokens", "tokens under the loss mask"),
                Column("sequences", INT, "sequences", "sequences with a token under the loss mask"),
                Column("learning_rate", REAL, "", "learning rate of the step"),
                Column("truncated", REAL, "fraction", "rollouts that hit the length limit without EOS"),
                Column("flat_groups", REAL, "fraction", "GRPO groups with zero reward variance"),
                *SIGNAL,
                Column("staleness", REAL, "optimizer steps", "mean age of the weights that drew the rollouts"),
                Column(
                    "mismatch_max", REAL, "nats", "largest |log p| difference of rollout and trainer on own samples"
                ),
                Column(
                    "mismatch_outside", REAL, "fraction", "tokens whose probability ratio of the two leaves 0.9 to 1.1"
                ),
                Column("ess", REAL, "fraction", "normalised effective sample size of the importance weights"),
                Column("clipped", REAL, "fraction", "tokens whose importance weight was cut, or ratio clipped"),
                Column("opd_loss", REAL, "", "OPD term of a mix, before its coefficient"),
                Column("rlvr_loss", REAL, "", "RLVR term of a mix, before its coefficient"),
                Column("opd_grad_norm", REAL, "", "gradient norm of the OPD term of a mix, before its coefficient"),
                Column("rlvr_grad_norm", REAL, "", "gradient norm of the RLVR term of a mix, before its coefficient"),
                Column("grad_cosine", REAL, "", "cosine between the gradients of a mix's terms; 0 where one is zero"),
                Column(
                    "opd_rms", REAL, "nats", "root mean square of a mix's OPD advantages, log s - log T of the token"
                ),
                Column("rlvr_rms", REAL, "", "root mean square of a mix's RLVR advantages"),
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
                Column(
                    "error_deg", REAL, "deg", "bound on the errors of mean_deg, rms_deg and max_deg; 90 says nothing"
                ),
                Column("angle_error_deg", REAL, "deg", "bound on the error of every single angle"),
                Column("delta", REAL, "weight units", "certificate's margin; null on dense routes, which need none"),
                Column("iterations", INT, "", "conjugate gradient steps of the solve; null on dense routes"),
                Column("fallback", TEXT, "", "why the first route was not enough; null where it was"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "singular_shift",
            "D3, leading part: how far each of the k largest singular values moved",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("k", INT, "", "number of leading values"),
                Column("shifts", pl.List(REAL), "weight units", "sigma_i(W_t) - sigma_i(W0), i = 1..k"),
                Column(
                    "nss_k", REAL, "", "||shifts||_2 / ||sigma_{i<=k}(W0)||_2; no proxy for nss, the bulk holds most"
                ),
                Column("largest", REAL, "weight units", "largest |shift|"),
                Column("error", REAL, "weight units", "bound on the error of every shift"),
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
                Column("error", REAL, "", "bound on the rounding error of nss"),
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
            "update_norm",
            "D5, D6: size and stable rank of the update W_t - W0, beside its noise floors",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("frobenius", REAL, "weight units", "||W_t - W0||_F"),
                Column("relative_norm", REAL, "", "||W_t - W0||_F / ||W0||_F"),
                Column("spectral_norm", REAL, "weight units", "||W_t - W0||_2"),
                Column("stable_rank", REAL, "", "||dW||_F^2 / ||dW||_2^2"),
                Column("stable_rank_error", REAL, "", "bound on the error of stable_rank"),
                Column(
                    "rounding_norm",
                    REAL,
                    "weight units",
                    "floor: expected norm of this view's rounding noise, sqrt(sum ulp^2 / 12)",
                ),
                Column("iid_stable_rank", REAL, "", "floor: stable rank of i.i.d. noise, mn / (sqrt m + sqrt n)^2"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "update_spectrum",
            "D9: concentration of the update's whole spectrum",
            (
                *MATRIX_KEYS,
                VIEW,
                Column("effective_rank", REAL, "", "exp entropy of p_i = sigma_i / sum sigma (Roy-Vetterli)"),
                Column("effective_rank_error", REAL, "", "first-order bound on its rounding error"),
                Column("effective_rank_energy", REAL, "", "exp entropy of p_i = sigma_i^2 / sum sigma^2"),
                Column("effective_rank_energy_error", REAL, "", "first-order bound on its rounding error"),
                Column("energy_top16", REAL, "fraction", "share of ||dW||_F^2 in the 16 largest singular values"),
                Column("energy_top16_error", REAL, "fraction", "bound on its rounding error"),
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
                Column("error", REAL, "", "first-order bound on its rounding error"),
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
                Column("error", REAL, "fraction", "bound on the error of similarity; 1 where the cut has no gap"),
                Column("chance", REAL, "fraction", "expected similarity of two random subspaces, k/n"),
                REASON,
                *DEPENDS_ON,
            ),
        ),
        Table(
            "nulls",
            "what D5 to D9 would show without structure: a direction that never turns, and shuffled entries",
            (
                *MATRIX_KEYS,
                VIEW,
                Column(
                    "null",
                    TEXT,
                    "",
                    "fixed_direction (the final update rescaled to this step's norm and rounded again; bf16 only) or "
                    "shuffled (this step's entries in one random order)",
                ),
                Column("final_step", INT, "optimizer steps", "the step taken as final"),
                Column("stable_rank", REAL, "", "of the null, as in update_norm"),
                Column("effective_rank", REAL, "", "of the null, as in update_spectrum"),
                Column("effective_rank_error", REAL, "", "first-order bound on its rounding error"),
                Column("effective_rank_energy", REAL, "", "of the null, as in update_spectrum"),
                Column("effective_rank_energy_error", REAL, "", "first-order bound on its rounding error"),
                Column("energy_top16", REAL, "fraction", "of the null, as in update_spectrum"),
                Column("energy_top16_error", REAL, "fraction", "bound on its rounding error"),
                Column("hill_k", pl.List(INT), "", "cuts of hill"),
                Column("hill", pl.List(REAL), "", "of the null at each hill_k"),
                Column("similarity_k", INT, "", "dimension of the subspaces compared"),
                Column("similarity_output", REAL, "fraction", "Sim_k of the null here and at final_step, output side"),
                Column("similarity_input", REAL, "fraction", "the same, input side"),
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
}
