"""The door to the tables: `from pipelines.lake import scan; scan("rotation")` is a Polars LazyFrame."""

from pipelines.lake.lake import scan, write, written
from pipelines.lake.schemas import TABLES

__all__ = ["TABLES", "scan", "write", "written"]
