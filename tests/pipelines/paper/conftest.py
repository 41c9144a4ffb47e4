"""Every item drawn once from planted studies: with every arm of every suite, and with those of core alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper.items import ITEMS
from pipelines.statistics.samples import fill_tables
from pipelines.studies.story import Drawing
from tests.pipelines.planted import every, plant, smollm, story, tiny, varied

__all__ = ["every", "plant", "smollm", "story", "tiny", "varied"]
SHIFTS = [0.3, -0.1]  # of every matrix's two leading singular values


def _shifted(tables: Mapping[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
    """The planted tables with singular shifts beside their drifts."""
    known = tables["spectral_drift"].filter(pl.col("role") != "embed").collect()
    shared = [name for name in known.columns if name in TABLES["singular_shift"].schema]
    rows = known.select(shared).with_columns(k=pl.lit(2, pl.Int64), shifts=pl.lit(SHIFTS), nss_k=pl.col("step") / 1e4)
    rows = pl.concat([pl.DataFrame(schema=TABLES["singular_shift"].schema), rows], how="diagonal")
    return fill_tables(dict(tables) | {"singular_shift": rows.lazy()})


@pytest.fixture(scope="session")
def complete(every) -> dict[str, pl.LazyFrame]:
    return _shifted(every)


@pytest.fixture(scope="session")
def core(tiny) -> dict[str, pl.LazyFrame]:
    return _shifted(tiny)


@pytest.fixture(scope="session")
def drawings(complete) -> dict[str, Drawing]:
    return {item.key: item.draw(complete, None) for item in ITEMS}


@pytest.fixture(scope="session")
def specs(drawings) -> dict[str, dict[str, Any]]:
    """Each chart as Vega-Lite, which is what is rendered."""
    return {key: drawing.chart.to_dict() for key, drawing in drawings.items()}


@pytest.fixture(scope="session")
def parts():
    """parts(spec): every dictionary inside a specification."""

    def walk(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from walk(child)

    return walk
