"""Files of older and newer versions of a table: what is mapped, what is refused, and in which words."""

import dataclasses
import io

import polars as pl
import pytest

from pipelines import cli, lake
from pipelines.cli import tables
from pipelines.lake import TABLES, versions
from pipelines.lake.lake import partition_key
from pipelines.store.objects import Store

KEYS = {"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": 1}
NOW = TABLES["training"]


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}/store")


@pytest.fixture
def renamed(monkeypatch):
    """The table as a later version would declare it: `loss` was once `nll`, and before that `objective`."""
    columns = [
        dataclasses.replace(column, was=("nll", "objective")) if column.name == "loss" else column
        for column in NOW.columns
    ]
    later = dataclasses.replace(NOW, columns=tuple(columns))
    monkeypatch.setitem(TABLES, "training", later)
    return later


def put(store, seed=0, **columns):
    """A file of another version; its rows are those of `columns`, its keys those of its path."""
    keys = {name: value for name, value in (KEYS | {"seed": seed}).items() if name not in columns}
    frame = pl.DataFrame(columns).with_columns(
        pl.lit(value, NOW.schema[name]).alias(name) for name, value in keys.items()
    )
    file = io.BytesIO()
    frame.write_parquet(file)
    key = partition_key("training", recipe="tiny.opd", seed=seed)
    store.write(key, file.getvalue())
    return key


def read(store, *columns):
    return lake.scan("training", store.uri).sort("seed").select(*columns).collect()


def test_a_column_that_an_older_file_lacks_is_null(any_store):
    put(any_store, seed=0, loss=[0.5])
    lake.write(any_store, "training", [KEYS | {"seed": 1, "loss": 0.25, "reward": 1.0}], recipe="tiny.opd", seed=1)
    found = read(any_store, "seed", "loss", "reward")
    assert found.rows() == [(0, 0.5, None), (1, 0.25, 1.0)]
    assert lake.read_partition(any_store, "training", recipe="tiny.opd", seed=0).schema == NOW.schema
    assert read(any_store, pl.all()).schema == NOW.schema


@pytest.mark.parametrize(
    ("column", "stored"),
    [("tokens", pl.Int32), ("tokens", pl.UInt32), ("loss", pl.Float32), ("loss", pl.Int64)],
    ids=["int32", "uint32", "float32", "integers"],
)
def test_a_narrower_number_is_read_as_the_declared_one(column, stored, files):
    put(files, seed=0, **{column: pl.Series([3], dtype=stored)})
    lake.write(files, "training", [KEYS | {"seed": 1, column: NOW.schema[column].to_python()(4)}], recipe="a", seed=1)
    found = read(files, column)
    assert found.schema == {column: NOW.schema[column]} and found[column].to_list() == [3, 4]
    assert (
        versions.explain_mismatch(NOW, pl.Schema({"recipe": pl.String(), "seed": pl.Int64(), column: stored()})) == ""
    )
    assert lake.read_partition(files, "training", recipe="tiny.opd", seed=0)[column].to_list() == [3]


def test_lists_widen_by_what_they_hold():
    def stored(inner):
        return pl.Schema({"recipe": pl.String(), "seed": pl.Int64(), "angles_deg": pl.List(inner)})

    assert versions.explain_mismatch(TABLES["rotation"], stored(pl.Float32())) == ""
    assert "angles_deg of type List(String)" in versions.explain_mismatch(TABLES["rotation"], stored(pl.String()))


def test_a_renamed_column_is_read_from_whichever_name_a_file_has(files, renamed):
    put(files, seed=0, objective=[0.5, 1.5])
    put(files, seed=1, nll=[2.5])
    lake.write(files, "training", [KEYS | {"seed": 2, "loss": 3.5}], recipe="tiny.opd", seed=2)
    assert read(files, "seed", "loss").rows() == [(0, 0.5), (0, 1.5), (1, 2.5), (2, 3.5)]
    assert read(files, pl.all()).schema == renamed.schema == NOW.schema, "the former names are no columns"
    found = lake.scan("training", files.uri).filter(pl.col("loss") > 2, seed=1).collect()
    assert found["loss"].to_list() == [2.5], "filters see the values under the new name"
    assert lake.read_partition(files, "training", recipe="tiny.opd", seed=0)["loss"].to_list() == [0.5, 1.5]


def test_a_former_name_has_the_type_of_its_column(files, renamed):
    put(files, nll=["low"])
    with pytest.raises(pl.exceptions.SchemaError, match=r"column nll: incoming: String != target: Float64$"):
        read(files, "loss")


def test_a_removed_column_is_not_read_and_asking_for_it_names_it(files):
    put(files, loss=[0.5], perplexity=[1.6])
    assert read(files, pl.all()).schema == NOW.schema
    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="perplexity"):
        read(files, "perplexity")


def test_an_older_reader_takes_what_it_knows_of_a_newer_file(any_store):
    """Newer: a column more, of a type this version has no column of, and one (kl) gone under another name."""
    key = put(any_store, loss=[0.5], divergence=[0.1], layers=[{"q": 1}])
    assert read(any_store, "loss", "kl").rows() == [(0.5, None)]
    file = pl.read_parquet(io.BytesIO(any_store.read(key)), hive_partitioning=False)
    assert versions.explain_mismatch(NOW, file.schema) == ""


@pytest.mark.parametrize(
    ("column", "values"),
    [("loss", ["low"]), ("tokens", [1.5]), ("tokens", [True]), ("study", [[1]])],
    ids=["text", "fraction", "flag", "list"],
)
def test_another_type_is_refused_in_one_line(column, values, files):
    key = put(files, **{column: values})
    line = rf"^data type mismatch for column {column}: incoming: .* != target: .*$"
    with pytest.raises(pl.exceptions.SchemaError, match=line):
        read(files, column)
    with pytest.raises(ValueError, match="it is of another version; measure the run again") as caught:
        lake.read_partition(files, "training", recipe="tiny.opd", seed=0)
    assert "\n" not in str(caught.value) and f"{files.uri}/{key} has a column {column} " in str(caught.value)
    schema = pl.read_parquet(files.path(key), hive_partitioning=False).schema
    assert versions.explain_mismatch(NOW, schema).startswith(f"has a column {column} of type ")


def test_the_command_line_says_it_in_one_line_and_verify_names_the_file(files, monkeypatch, capsys):
    key = put(files, loss=["low"])
    monkeypatch.setenv("OPD_STORE", files.uri)
    monkeypatch.setattr(tables, "show_tables", lambda given: read(files, "loss").height)
    assert cli.main(["tables"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {files.uri}/{key} has a column loss of type String, ")
    assert cli.main(["verify", files.uri]) == 5
    out = capsys.readouterr().out
    assert any(
        key in it and "has a column loss of type String, and Float64 is declared" in it for it in out.splitlines()
    )


def test_a_file_without_its_keys_is_named():
    assert (
        versions.explain_mismatch(NOW, pl.Schema({"recipe": pl.String(), "loss": pl.Float64()}))
        == "lacks the column seed"
    )


def test_former_names_are_names_of_no_column():
    for table in TABLES.values():
        former = [name for column in table.columns for name in column.was]
        assert len(set(former)) == len(former) and not set(former) & set(table.schema), table.name
