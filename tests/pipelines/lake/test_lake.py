import os
import random

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines import lake
from pipelines.lake import TABLES
from pipelines.store.objects import Store


def rows(count=3, seed=0, recipe="tiny.opd", **columns):
    keys = {"study": "tiny", "recipe": recipe, "seed": seed}
    return [keys | {"step": step, "loss": 1.0 / (step + 1), "tokens": step} | columns for step in range(count)]


def write(store, found, seed=0, recipe="tiny.opd", table="training"):
    return lake.write(store, table, found, recipe=recipe, seed=seed)


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}/store")


def test_rows_come_back_from_every_store(any_store):
    assert write(any_store, rows()) == "lake/training/recipe=tiny.opd/seed=0/part-0.parquet"
    write(any_store, rows(2, seed=1), seed=1)
    write(any_store, rows(1, recipe="tiny.sft"), recipe="tiny.sft")
    found = lake.scan("training", any_store.uri).collect()
    assert found.schema == TABLES["training"].schema
    assert found.select("recipe", "seed", "step").rows() == [
        ("tiny.opd", 0, 0), ("tiny.opd", 0, 1), ("tiny.opd", 0, 2), ("tiny.opd", 1, 0), ("tiny.opd", 1, 1),
        ("tiny.sft", 0, 0),
    ]  # fmt: skip
    assert found["loss"].to_list()[:3] == [1.0, 0.5, 1 / 3]
    assert found["reward"].null_count() == 6


def test_plain_polars_reads_the_same(files):
    for seed in (0, 1):
        write(files, rows(seed=seed), seed=seed)
    plain = pl.scan_parquet(f"{files.path('lake/training')}/**/*.parquet").collect()
    assert plain.equals(lake.scan("training", files.uri).collect())
    hive = pl.scan_parquet(f"{files.path('lake/training')}/**/*.parquet", hive_partitioning=True).collect()
    assert hive.select(plain.columns).equals(plain), "the keys in the path are the keys inside"


def test_plain_polars_reads_the_same_from_s3(s3):
    write(s3, rows())
    plain = pl.scan_parquet(f"{s3.uri}/lake/training/**/*.parquet", storage_options=lake.lake.s3_options())
    assert plain.collect().equals(lake.scan("training", s3.uri).collect())


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_rows_has_its_schema(table, any_store):
    assert lake.scan(table, any_store.uri).collect_schema() == TABLES[table].schema
    assert lake.scan(table, any_store.uri).collect().is_empty()


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_partition_keeps_the_schema(table, files):
    partition = dict.fromkeys(TABLES[table].by, 0)
    lake.write(files, table, [], **partition)
    assert lake.scan(table, files.uri).collect().schema == TABLES[table].schema
    assert lake.written(files, table, **partition).schema == TABLES[table].schema


def test_a_rewrite_replaces_its_partition_and_no_other(any_store):
    write(any_store, rows(5))
    write(any_store, rows(5, seed=1), seed=1)
    write(any_store, rows(2, loss=9.0))
    found = lake.scan("training", any_store.uri).collect()
    assert found.filter(seed=0)["loss"].to_list() == [9.0, 9.0]
    assert len(found.filter(seed=1)) == 5


def test_what_is_written_is_read_by_partition(any_store):
    assert lake.written(any_store, "training", recipe="tiny.opd", seed=0) is None
    write(any_store, rows())
    assert lake.written(any_store, "training", recipe="tiny.opd", seed=0).height == 3
    assert lake.written(any_store, "training", recipe="tiny.opd", seed=1) is None


def test_equal_rows_give_equal_bytes(files):
    found = [row | {"reward": random.Random(row["step"]).random()} for row in rows(500)]
    shuffled = [dict(random.Random(1).sample(sorted(row.items()), len(row))) for row in found]
    data = []
    for version in (found, shuffled, pl.DataFrame(found).to_dicts()):
        data.append(files.read(write(files, version)))
    assert data[0] == data[1] == data[2]
    write(files, [*found[:-1], found[-1] | {"loss": 0.0}])
    assert files.read("lake/training/recipe=tiny.opd/seed=0/part-0.parquet") != data[0]


def test_floats_lists_and_nulls_are_exact(files):
    row = rows(1)[0] | {"angles_deg": [0.1 + 0.2, 5e-324, 1e308], "k": 3, "mean_deg": 1 / 3, "layer": None}
    del row["loss"], row["tokens"]
    write(files, [row], table="rotation")
    (found,) = lake.scan("rotation", files.uri).collect().to_dicts()
    assert {name: found[name] for name in row} == row


def test_a_frame_of_the_declared_schema_is_taken_as_it_is(files):
    write(files, rows())
    frame = lake.scan("training", files.uri).collect()
    write(files, frame.head(1))
    assert lake.scan("training", files.uri).collect().equals(frame.head(1))


@pytest.mark.parametrize("other", [b"", b"sha257", b"sha256\xff"], ids=["no digest", "another key", "no text"])
def test_a_column_that_was_renamed_in_a_stored_table_is_refused_with_or_without_its_digest(other, files):
    """Of page, dictionary and footer only the pages have checksums; the digest covers the rest, its absence too."""
    path = files.path(write(files, rows()))
    stored = pq.read_table(path)
    (kept,) = stored.schema.metadata.values()
    renamed = stored.rename_columns([{"loss": "lost"}.get(name, name) for name in stored.column_names])
    pq.write_table(renamed.replace_schema_metadata({other: kept} if other else None), path, store_schema=bool(other))
    with pytest.raises(ValueError, match=r"part-0\.parquet (is not what was written there|cannot be read \(.+\)); .+"):
        lake.written(files, "training", recipe="tiny.opd", seed=0)


def test_a_crash_while_replacing_a_partition_leaves_the_old_rows(files, monkeypatch):
    write(files, rows(3))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(files, rows(1))
    with pytest.raises(KeyboardInterrupt):
        write(files, rows(1), seed=7)
    assert lake.scan("training", files.uri).collect()["seed"].to_list() == [0, 0, 0]


def test_a_store_in_an_odd_place_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("OPD_STORE", str(tmp_path / "run[1] 50%20 * größe"))
    write(Store(lake.lake.default_uri()), rows())
    assert lake.scan("training").collect().height == 3
    assert lake.scan("training", str(tmp_path / "run[1] 50%20 * größe")).collect().height == 3


def test_a_store_with_colons_in_its_address_is_read(any_store):
    one, two = (Store(f"{any_store.uri}/exp::{name}") for name in "ab")
    write(one, rows(3))
    write(two, rows(2))
    assert lake.scan("training", one.uri).collect().height == 3
    assert lake.scan("training", two.uri).filter(recipe="tiny.opd", seed=0).collect().height == 2


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_filter_on_the_keys_opens_only_its_partitions(kind, request):
    store = request.getfixturevalue("files" if kind == "file" else kind)
    write(store, rows())
    write(store, rows(2, seed=1), seed=1)
    store.write("lake/training/recipe=tiny.opd/seed=2/part-0.parquet", b"no Parquet")
    store.write("lake/training/recipe=tiny.opd-at20/seed=0/part-0.parquet", b"nor this")
    table = lake.scan("training", store.uri)
    assert table.filter(pl.col("recipe") == "tiny.opd", pl.col("seed") < 2).collect().height == 5
    assert table.filter(pl.col("seed").is_in([1]), pl.col("loss") < 1).collect().height == 1
    with pytest.raises(pl.exceptions.ComputeError):
        table.collect()


def test_named_partitions_are_listed_alone(any_store, monkeypatch):
    for recipe in ("tiny.opd", "tiny.opd-at20"):
        for seed in (0, 1, 10):
            write(any_store, rows(1, seed=seed, recipe=recipe), seed=seed, recipe=recipe)
    listed, find = [], Store.find
    monkeypatch.setattr(Store, "find", lambda store, prefix: listed.append(prefix) or find(store, prefix))

    def keys(**partition):
        return lake.scan("training", any_store.uri, **partition).select("recipe", "seed").collect().rows()

    assert keys(recipe="tiny.opd") == [("tiny.opd", 0), ("tiny.opd", 1), ("tiny.opd", 10)]
    assert keys(recipe="tiny.opd", seed=1) == [("tiny.opd", 1)]
    assert sorted(keys(seed=10)) == [("tiny.opd", 10), ("tiny.opd-at20", 10)]
    assert keys(recipe="tiny.op") == keys(recipe="tiny.opd", seed=2) == []
    start = "lake/training/recipe=tiny.op"
    assert listed == [f"{start}d", f"{start}d/seed=1", "lake/training", f"{start}", f"{start}d/seed=2"]
    with pytest.raises(
        ValueError, match=r"^table training is partitioned by \('recipe', 'seed'\), not by 'step'; filter"
    ):
        keys(step=1)


@pytest.mark.parametrize("place", ["run=3/store", "plain"])
@pytest.mark.parametrize(
    "recipe", ["external.50%20", "2024-01-01", "7", "größe=1"], ids=["percent", "date", "number", "="]
)
def test_keys_that_a_path_would_change_are_read_as_they_are(place, recipe, tmp_path):
    store = Store(f"file://{tmp_path / place}")
    write(store, rows(1, recipe=recipe), recipe=recipe)
    write(store, rows(1, recipe="tiny.opd"))
    found = lake.scan("training", store.uri).filter(pl.col("recipe") == recipe).collect()
    assert found.schema == TABLES["training"].schema
    assert found.select("recipe", "seed", "step").rows() == [(recipe, 0, 0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lost": 1.0}, r"rows of training have undeclared columns \['lost'\]"),
        ({"loss": "low"}, r"column training\.loss: .*String"),
        ({"tokens": 1.5}, r"column training\.tokens: .*Float64"),
        ({"study": 3}, r"column training\.study: .*Int64"),
        ({"seed": "0"}, r"column training\.seed: .*String"),
        ({"loss": [1.0]}, r"column training\.loss: "),
    ],
)
def test_rows_outside_the_schema_are_refused_in_one_line(columns, message, files):
    with pytest.raises(ValueError, match=message) as caught:
        write(files, [*rows(2), rows(1)[0] | columns])
    assert "\n" not in str(caught.value)
    assert lake.scan("training", files.uri).collect().is_empty()


def test_a_frame_of_another_schema_is_refused(files):
    with pytest.raises(ValueError, match="rows of training have schema"):
        write(files, pl.DataFrame(rows()))


def test_unknown_tables_and_wrong_partitions_are_refused(files):
    with pytest.raises(ValueError, match=r"^unknown table 'rotations'; known: training, .*rotation"):
        lake.scan("rotations", files.uri)
    with pytest.raises(ValueError, match="unknown table 'rotations'"):
        write(files, [], table="rotations")
    for partition in ({"study": "tiny"}, {"recipe": "tiny.opd"}, {"recipe": "a", "seed": 0, "step": 1}):
        with pytest.raises(ValueError, match=r"training is partitioned by \('recipe', 'seed'\), got "):
            lake.write(files, "training", [], **partition)
    with pytest.raises(ValueError, match=r"verdicts is partitioned by \('study',\)"):
        lake.write(files, "verdicts", [], recipe="tiny.opd", seed=0)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://s3.example"])
def test_polars_is_told_what_the_environment_says_of_s3(endpoint, monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    assert lake.lake.s3_options() == {
        "aws_region": "eu-west-1",
        "aws_access_key_id": "me",
        "aws_endpoint_url": endpoint,
        "aws_allow_http": str(endpoint.startswith("http:")).lower(),
    }
