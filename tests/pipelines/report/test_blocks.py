"""Maps of a planted run add up to the rows that measuring the same weights gives."""

import numpy as np
import polars as pl
import pytest
import torch

from opd_ops.geometry.suite import Matrix, Settings
from pipelines.lake.schemas import TABLES
from pipelines.paper import figure3
from pipelines.report import blocks
from pipelines.statistics.samples import fill_tables
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

NAME = "layers.1.o"
SHAPE = (40, 24)

RUNS = ("sft", "opd", "rlvr")


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(SHAPE, generator=generator)
    end = start + 1e-2 * torch.randn(SHAPE, generator=generator) * (torch.rand(SHAPE, generator=generator) < 0.6)
    end[:8, :8] = start[:8, :8]  # a block in which nothing changes
    return start, end


@pytest.fixture(scope="module")
def rows(weights):
    start, end = weights
    measured = Matrix(start, settings=Settings(tables=("localization",)), projection=True).snapshot(7, end)
    return [row for row in measured.rows["localization"] if row["view"] == "bf16"]


@pytest.fixture(scope="module")
def tables(rows):
    keys = {"study": "s", "recipe": "s.opd", "seed": 0, "matrix": NAME, "layer": 1, "role": "o", "step": 7}
    made = {
        "localization": [row | keys for row in rows],
        "update_support": [keys | {"view": "bf16", "numel": 960, "unchanged": 0.5, "scope": "projection"}],
    }
    return fill_tables({
        name: pl.DataFrame(part, schema=TABLES[name].schema, orient="row").lazy() for name, part in made.items()
    })  # fmt: skip


@pytest.fixture
def store(tmp_path, weights):
    store = Store(f"file://{tmp_path}")
    for step, weight in zip((0, 7), weights, strict=True):
        Trajectory(store, "s.opd", 0).commit(step, {f"{NAME}.weight": weight}, None)
    return store


def test_maps_weighted_by_what_changed_give_density_and_overlaps(tables, store, rows):
    found = blocks.sum_masks(tables, store, RUNS, 0.3, 0)
    assert found.schema == blocks.SCHEMA and found.height == 3 * 5 * 3
    size = (pl.col("row_end") - pl.col("row")) * (pl.col("column_end") - pl.col("column"))
    changed = found.filter(pl.col("map") == "changed").select("row", "column", count=size * pl.col("share") / 100)
    wanted = {row["mask"]: row for row in rows if row["alpha"] == 0.3}
    assert changed["count"].sum() / 960 == pytest.approx(wanted["principal"]["density"])
    for mask in ("principal", "low_magnitude"):
        both = found.filter(pl.col("map") == mask).join(changed, on=("row", "column")).drop_nulls("share")
        overlap = (both["share"] * both["count"]).sum() / both["count"].sum()
        assert overlap == pytest.approx(100 * wanted[mask]["overlap"])


def test_a_block_without_changes_has_no_overlap(tables, store):
    corner = blocks.sum_masks(tables, store, RUNS, 0.3, 0).filter(pl.col("row") == 0, pl.col("column") == 0)
    assert dict(corner.select("map", "share").iter_rows()) == {"changed": 0.0, "principal": None, "low_magnitude": None}


def test_a_store_without_the_weights_has_no_maps_and_the_figure_says_so(tables, tmp_path):
    empty = Store(f"file://{tmp_path}/empty")
    assert blocks.sum_masks(tables, empty, RUNS, 0.3, 0).is_empty()
    assert "are not in this store" in figure3.draw(tables, empty).absent[0]
    assert "need a store" in figure3.draw(tables, None).absent[0]


def test_a_figure_with_maps_draws_every_block_and_reads_nothing_but_the_store(tables, store):
    drawing = figure3.draw(tables, store)
    assert not drawing.absent
    data = drawing.chart.to_dict()["datasets"].values()
    shares = [row["share"] for rows in data for row in rows if row.get("share") is not None]
    assert len(shares) == 45 - 2


def test_other_seeds_are_not_mapped(tables, store):
    assert blocks.sum_masks(tables, store, RUNS, 0.3, 1).is_empty()


@pytest.mark.parametrize(("length", "count"), [(4096, 32), (128, 16), (40, 5), (8, 1), (3, 1), (300, 32)])
def test_edges_cover_a_side_with_blocks_of_nearly_one_size(length, count):
    edges = blocks.block_edges(length)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1], len(sizes)) == (0, length, count)
    assert sizes.max() - sizes.min() <= 1


def test_blocks_are_sums():
    values = np.arange(24.0).reshape(4, 6)
    found = blocks.block_sums(values, np.array([0, 1, 4]), np.array([0, 6]))
    assert found.tolist() == [[values[0].sum()], [values[1:].sum()]]
