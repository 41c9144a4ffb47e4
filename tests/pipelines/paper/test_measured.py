"""The numbers that the items draw, against hand computations on small planted tables."""

import math

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper import (
    confinement,
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    published,
    table1,
    variants,
)
from pipelines.paper.curves import RUNS
from pipelines.statistics import matrices
from pipelines.statistics.samples import fill_tables

SEEDS = (0, 1, 2)


def frame(name, rows):
    """Rows of a table: what is not given is null; the study is `s`, the view bf16."""
    made = [{"study": "s", "view": "bf16"} | row for row in rows]
    kept = [{key: value for key, value in row.items() if key in TABLES[name].schema} for row in made]
    return pl.DataFrame(kept, schema=TABLES[name].schema, orient="row").lazy()


def matrix(role, layer=0):
    return {"matrix": f"layers.{layer}.{role}", "role": role, "layer": layer}


def run(arm="opd", seed=0, step=10):
    return {"recipe": f"s.{arm}", "seed": seed, "step": step}


def only(frame, **values):
    (row,) = frame.filter(*(pl.col(key) == value for key, value in values.items())).iter_rows(named=True)
    return row


def test_unchanged_weights_are_weighted_by_their_number_and_other_tensors_left_out():
    shares = {"q": (100, 0.2), "gate": (300, 0.6), "embed": (1000, 0.0)}
    rows = [
        run(seed=seed)
        | matrix(role)
        | {"numel": numel, "unchanged": share + 0.01 * seed, "scope": "other" if role == "embed" else "projection"}
        for seed in SEEDS
        for role, (numel, share) in shares.items()
    ]
    found = only(table1.measure_figure(fill_tables({"update_support": frame("update_support", rows)})), arm="opd")
    assert found["value"] == pytest.approx(100 * (0.2 * 100 + 0.6 * 300) / 400 + 1)  # the seeds add 0, 1 and 2 points
    assert found["high"] - found["value"] == pytest.approx(4.302652729749464 / math.sqrt(3))


def test_angles_and_shifts_are_of_the_second_blocks_output_projection():
    places = [(0, "q"), (1, "o"), (0, "o"), (1, "q"), (0, "down")]
    support = [run() | matrix(role, layer) | {"numel": 4, "scope": "projection"} for layer, role in places]
    angles = {(1, "o"): [1.0, 4.0]}
    rotation = [
        run(step=step)
        | matrix(role, layer)
        | {"side": side, "k": 2, "mean_deg": 1.0, "max_deg": 10.0 * layer + rank}
        | {"angles_deg": [factor * angle for angle in angles.get((layer, role), [7.0, 8.0])]}
        for rank, (layer, role) in enumerate(places)
        for side, factor in (("input", 1), ("output", 2))
        for step in (5, 10)
    ]
    shift = [
        run()
        | matrix(role, layer)
        | {"k": 2, "nss_k": 0.1, "shifts": [-0.5, 0.25] if (layer, role) == (1, "o") else [9.0]}
        for layer, role in places
    ]
    drift = [run() | matrix(role, layer) | {"nss": 10.0 ** -(rank + 1)} for rank, (layer, role) in enumerate(places)]
    named = {"update_support": support, "rotation": rotation, "singular_shift": shift, "spectral_drift": drift}
    tables = fill_tables({name: frame(name, rows) for name, rows in named.items()})
    assert matrices.representative_matrix(tables, RUNS) == "layers.1.o"
    found = figure2.measure_figure(tables)
    inner = found[published.ANGLE].filter(pl.col("side") == "input")
    assert inner.select("index", "value").rows() == [(1, pytest.approx(1)), (2, pytest.approx(4))]
    assert found[published.ANGLE].filter(pl.col("side") == "output")["value"].to_list() == pytest.approx([2, 8])
    assert found[figure2.SHIFT].select("index", "value").rows() == [(1, -0.5), (2, 0.25)]
    # By layer, then q k v o gate up down: 0.q, 0.o, 0.down, 1.q, 1.o.
    order = [places.index(place) for place in [(0, "q"), (0, "o"), (0, "down"), (1, "q"), (1, "o")]]
    assert found[published.NSS]["index"].to_list() == [1, 2, 3, 4, 5]
    assert found[published.NSS]["value"].to_list() == pytest.approx([10.0 ** -(rank + 1) for rank in order])
    largest = found[published.LARGEST_ANGLE].filter(pl.col("side") == "input")
    wanted = [10.0 * places[rank][0] + rank for rank in order]
    assert largest["value"].to_list() == pytest.approx([value for value in wanted if value > 0])  # 0 has no logarithm


def test_a_study_of_one_block_shows_its_first_matrix():
    rows = [run() | matrix(role) | {"numel": 4, "scope": "projection"} for role in ("gate", "k")]
    assert (
        matrices.representative_matrix(fill_tables({"update_support": frame("update_support", rows)}), RUNS)
        == "layers.0.k"
    )
    assert matrices.representative_matrix(fill_tables({}), RUNS) is None


def test_overlaps_are_means_over_matrices_at_the_weight_nearest_to_the_papers():
    rows = [
        run(arm, seed, step) | matrix(role) | {"mask": mask, "alpha": alpha, "overlap": value, "density": density}
        for arm, seed in (("opd", 0), ("rlvr", 0))
        for step, density in ((5, 0.9), (10, 0.5))
        for role, value in (("q", 0.2), ("gate", 0.4))
        for mask in ("principal", "low_magnitude")
        for alpha in (0.25, 0.5)
    ]
    tables = fill_tables({"localization": frame("localization", rows)})
    assert figure3.nearest_weight(tables) == 0.25 and figure3.nearest_weight(fill_tables({})) is None
    found = figure3.measure_figure(tables, 0.25)
    assert only(found[published.PRINCIPAL], arm="opd")["value"] == pytest.approx(30)
    assert only(found[published.DENSITY], arm="rlvr")["value"] == pytest.approx(50)


def test_stable_rank_is_a_mean_over_matrices_then_over_seeds_on_the_log_axis():
    rows = [
        run(seed=seed, step=step)
        | matrix(role)
        | {"stable_rank": value * 4.0**seed, "frobenius": step * value, "view": "master"}
        for seed in SEEDS
        for step in (5, 10)
        for role, value in (("q", 1.0), ("gate", 3.0))
    ]
    tables = fill_tables({"update_norm": frame("update_norm", rows)})
    ranks, null = figure4.measure_figure(tables)[published.STABLE_RANK]
    assert null.is_empty()
    # Means over matrices are 2, 8 and 32: their geometric mean is 8.
    assert only(ranks, progress=100.0)["value"] == pytest.approx(8)
    norms, _ = figure4.measure_figure(tables)[published.NORM]
    assert only(norms, progress=50.0)["value"] == pytest.approx(10)
    varied = only(variants.measure_variants(tables, published.STABLE_RANK), progress=100.0)
    assert varied["value"] == pytest.approx(14)  # the linear axis has the plain mean


def test_locking_leaves_the_end_out_and_chance_is_that_of_the_table():
    rows = [
        run(step=step)
        | matrix("q")
        | {"step_other": other, "side": side, "k": 16, "similarity": value, "chance": 0.125}
        for step, other, side, value in (
            (2, 10, "input", 0.4), (2, 10, "output", 0.9), (5, 10, "input", 0.8), (2, 5, "input", 0.1)
        )
    ]  # fmt: skip
    runs, null, chance = figure5.measure_figure(fill_tables({"locking": frame("locking", rows)}))
    assert runs.select("progress", "value").rows() == [(20.0, 0.4), (50.0, 0.8)]
    assert null.is_empty() and chance == 0.125
    assert figure5.nearest_early(runs)["progress"].to_list() == [20.0]


def evaluations(arm, *points, seed=0):
    return [run(arm, seed, step) | {"temperature": 1.0, "accuracy": accuracy} for step, accuracy in points]


def test_a_continued_run_counts_from_where_its_parent_was_taken_up():
    rows = evaluations("sft", (0, 0.1), (50, 0.3), (90, 0.5)) + evaluations("sft", (0, 0.1), (80, 0.7), seed=1)
    rows += evaluations("sft-at20", (0, 0.2), (80, 0.6)) + evaluations("sft-at20-own16", (0, 0.2), (80, 0.4))
    rows += evaluations("sft-at5-own16", (0, 0.2), (95, 0.9))  # another begin is another figure
    found = confinement.accuracy_rows(fill_tables({"evaluation": frame("evaluation", rows)}))
    assert only(found, arm="sft", point="end")["value"] == pytest.approx(60)
    assert only(found, arm="sft", point="end")["step"] == 85  # gated: the mean of 90 and 80
    assert [only(found, arm="sft-at20", point=point)["step"] for point in ("start", "end")] == [20, 100]
    assert only(found, arm="sft-at20-own16", point="end")["value"] == pytest.approx(40)
    assert "sft-at5-own16" not in set(found["arm"])
    (family,) = confinement.started_families(found, ("opd", "sft"))
    assert family.parent == "sft"
    (sentence,) = confinement.describe_absent(fill_tables({}), found, ("sft",))
    assert "sft-at20-random16" in sentence and "sft-at20-own16" not in sentence


def test_the_continued_runs_of_another_study_begin_at_a_step_of_their_own():
    rows = evaluations("opd", (0, 0.1), (15, 0.5)) + evaluations("opd-at4", (0, 0.2), (11, 0.6))
    rows += evaluations("opd-at4-own16", (0, 0.2), (11, 0.4))
    found = confinement.accuracy_rows(fill_tables({"evaluation": frame("evaluation", rows)}))
    assert [only(found, arm="opd-at4", point=point)["step"] for point in ("start", "end")] == [4, 15]
    (family,) = confinement.started_families(found, ("opd", "sft"))
    assert (family.parent, family.begin) == ("opd", 4)
    (sentence,) = confinement.describe_absent(fill_tables({}), found, ("opd",))
    assert "opd-at4-random16" in sentence and "at20" not in sentence
    drawing = figure6.draw(fill_tables({"evaluation": frame("evaluation", rows)}))
    papers = {row["arm"]: row["paper"] for row in drawing.numbers.iter_rows(named=True)}
    assert papers["opd-at4-own16"].startswith("64.2") and drawing.chart is not None


def test_the_paper_compares_final_accuracies_that_are_planted(drawings):
    numbers = {row["arm"]: row["value"] for row in drawings["figure6"].numbers.iter_rows(named=True)}
    assert numbers == pytest.approx({
        "opd-at20": 86, "opd-at20-own16": 86, "opd-at20-random16": 73,
        "sft-at20": 52, "sft-at20-own16": 40, "sft-at20-random16": 27,
    })  # fmt: skip
    every = drawings["figure8"].numbers
    assert set(every["quantity"]) == {"final accuracy, T=1 (%)", "final accuracy, greedy (%)"}
    assert every.height == 2 * 4 * 3
