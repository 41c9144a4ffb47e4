"""The contract of the tables: the names and types that readers of the lake rely on."""

import re

import polars as pl
import pytest

from pipelines.lake import TABLES

RUN = "study recipe seed step"
MATRIX = f"{RUN} matrix layer role"
CONTRACT = {
    "training": f"{RUN} loss reward kl grad_norm tokens sequences removed leaked_step leaked tripped noise staleness "
    "mismatch_max ess clipped opd_grad_norm rlvr_grad_norm grad_cosine opd_rms rlvr_rms student_mass teacher_mass "
    "overlap",
    "positions": f"{RUN} position position_end tokens kl entropy teacher_entropy student_mass teacher_mass overlap",
    "sync": f"{RUN} engine engine_release tensors bytes digest tokens mean_abs p95 p99 maximum outside",
    "timing": f"{RUN} phase wall_s cpu_s",
    "evaluation": f"{RUN} temperature accuracy stderr n",
    "update_support": f"{MATRIX} numel view unchanged",
    "rotation": f"{MATRIX} view side k mean_deg rms_deg max_deg angles_deg error_deg method",
    "spectral_drift": f"{MATRIX} nss error view",
    "localization": f"{MATRIX} view mask alpha rank overlap density",
    "singular_shift": f"{MATRIX} view k shifts nss_k error",
    "update_norm": f"{MATRIX} view frobenius relative_norm spectral_norm stable_rank stable_rank_error "
    "rounding_norm iid_stable_rank",
    "update_spectrum": f"{MATRIX} view effective_rank effective_rank_energy energy_top16",
    "hill": f"{MATRIX} view k hill error",
    "locking": f"{MATRIX} step_other side k view similarity error",
    "nulls": f"{MATRIX} view null final_step stable_rank effective_rank hill_k similarity_k similarity_input",
    "monitor": f"{RUN} view quantity value low high inside relative_norm reference references reason method",
    "regime": f"{RUN} view budget relative_norm budget_step diagnostic scale value reference reference_value spread "
    "distance confusion verdict regime reason",
    "transfer": f"{RUN} family temperature accuracy stderr n problems samples",
    "predictions": "study view share outcome family scope coefficient correlation low high p_value runs seeds note",
    "means": "study metric address arm seed view weighting role layer value matrices",
    "scaling": "study metric view arm factor value low high misfit seeds",
    "verdicts": "claim left right effect boot_low boot_high low high status holds size detectable control "
    "control_effect control_low control_high control_says paper",
    "bench": "figure case quantity value unit goal met note commit machine torch time",
}
TEXT = {"study", "recipe", "matrix", "role", "phase", "view", "side", "mask", "null", "method"}
TEXT |= {"claim", "left", "right", "paper", "engine", "engine_release", "digest"}
TEXT |= {"case", "quantity", "unit", "goal", "note", "commit", "machine", "torch", "time"}
TEXT |= {"budget", "diagnostic", "scale", "reference", "verdict", "regime", "reason", "family", "outcome", "scope"}
TEXT |= {"coefficient", "metric", "address", "arm", "weighting", "status", "control", "control_says", "factor"}
WHOLE = {
    "references",
    "problems",
    "samples",
    "runs",
    "seeds",
    "matrices",
    "figure",
    "seed",
    "step",
    "layer",
    "tokens",
    "n",
    "numel",
    "k",
    "rank",
    "step_other",
}
WHOLE |= {"tripped", "final_step", "similarity_k", "position", "position_end", "sequences", "tensors", "bytes"}
FRACTIONS = {"accuracy", "stderr", "unchanged", "overlap", "density", "alpha", "similarity", "reward", "chance"}
FRACTIONS |= {"similarity_input", "similarity_output"}
LISTS = {"angles_deg": pl.List(pl.Float64), "shifts": pl.List(pl.Float64), "hill_k": pl.List(pl.Int64)}
columns = [(table, column) for table in TABLES.values() for column in table.columns]


def test_the_tables_are_these():
    assert set(TABLES) == set(CONTRACT)
    assert all(name == table.name and table.meaning for name, table in TABLES.items())


@pytest.mark.parametrize("table", CONTRACT)
def test_promised_columns_are_there_with_their_types(table):
    schema = TABLES[table].schema
    for name in CONTRACT[table].split():
        expected = pl.String if name in TEXT else pl.Int64 if name in WHOLE else pl.Float64
        expected = (LISTS | {"holds": pl.Boolean, "met": pl.Boolean, "inside": pl.Boolean}).get(name, expected)
        assert schema[name] == expected, name


def test_partitions_are_columns_of_their_own_table():
    for name, table in TABLES.items():
        study = name in ("verdicts", "means", "scaling", "predictions")
        assert table.by == (("study",) if study else ("commit",) if name == "bench" else ("recipe", "seed"))
        assert set(table.by) <= set(table.schema)
        assert len(table.schema) == len(table.columns), "no name twice"


def test_every_column_says_what_it_means():
    assert all(len(column.meaning) > 5 for _, column in columns)


def test_what_is_measured_in_something_says_in_what():
    units = {(table.name, column.name): column.unit for table, column in columns}
    for (table, name), unit in units.items():
        if name.endswith("_deg"):
            assert unit == "deg", (table, name)
        if name.endswith("_s"):
            assert unit == "s", (table, name)
        if re.search(r"frobenius|(?<!grad)_norm$|^gap$", name) and name != "relative_norm":
            assert unit == "weight units", (table, name)
        if name in ("step", "step_other", "final_step", "run_steps"):
            assert unit == "optimizer steps", (table, name)
        if name in FRACTIONS:
            assert unit == "fraction", (table, name)
    for table, name in (("training", "loss"), ("training", "kl"), ("training", "entropy"), ("training", "tokens")):
        assert units[table, name]


def test_a_column_has_one_type_in_all_tables():
    types = {}
    for table, column in columns:
        if (table.name, column.name) == ("nulls", "hill"):  # one row holds every cut
            assert column.dtype == pl.List(types["hill"])
            continue
        assert types.setdefault(column.name, column.dtype) == column.dtype, (table.name, column.name)


def test_matrix_tables_carry_what_their_numbers_depend_on():
    needed = {"dtype", "objective", "optimizer", "learning_rate", "weight_decay", "run_steps", "method", "view"}
    for table in TABLES.values():
        if "matrix" in table.schema:
            assert needed <= set(table.schema), table.name


def test_engine_rows_fit_their_tables(trajectory_rows):
    for table, rows in trajectory_rows.items():
        assert rows
        for row in rows:
            assert set(row) <= set(TABLES[table].schema), table


@pytest.fixture
def trajectory_rows():
    import torch

    from opd_ops.geometry.suite import Settings, measure_matrix

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(12, 8, generator=generator)
    snapshots = [(step, base + 0.1 * torch.randn(12, 8, generator=generator)) for step in (1, 2)]
    settings = Settings(k=(2,), hill_k=(2,), locking_k=(2,))
    return measure_matrix(base, snapshots, settings=settings, projection=True).rows
