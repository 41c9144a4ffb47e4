"""Tables written, read, replaced and damaged: the same rows come back, or one line says why not.

The file is longer than 350 lines because writing and reading are tried on the same tables and stores.
"""

import io
import os
import random
import re

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines import lake
from pipelines.lake import TABLES
from pipelines.lake.lake import DIGEST, GROUP, compact, encode_partition, file_of, s3_options
from pipelines.maintenance.audit import audit
from pipelines.store.objects import Store, default_uri


def rows(count=3, seed=0, recipe="tiny.opd", **columns):
    keys = {"study": "tiny", "recipe": recipe, "seed": seed}
    return [keys | {"step": step, "loss": 1.0 / (step + 1), "tokens": step} | columns for step in range(count)]


def write(store, found, seed=0, recipe="tiny.opd", table="training"):
    return lake.write(store, table, found, recipe=recipe, seed=seed)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "store").mkdir()
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
    plain = pl.scan_parquet(f"{files.path('lake/training')}/recipe=*/seed=*/part-0.parquet").collect()
    assert plain.equals(lake.scan("training", files.uri).collect())
    hive = pl.scan_parquet(
        f"{files.path('lake/training')}/recipe=*/seed=*/part-0.parquet", hive_partitioning=True
    ).collect()
    assert hive.select(plain.columns).equals(plain), "the keys in the path are the keys inside"


def test_plain_polars_reads_the_same_from_s3(s3):
    write(s3, rows())
    plain = pl.scan_parquet(f"{s3.uri}/lake/training/recipe=*/seed=*/part-0.parquet", storage_options=s3_options())
    assert plain.collect().equals(lake.scan("training", s3.uri).collect())


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_rows_has_its_schema(table, any_store):
    any_store.write("runs/x", b"")
    assert lake.scan(table, any_store.uri).collect_schema() == TABLES[table].schema
    assert lake.scan(table, any_store.uri).collect().is_empty()


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_partition_keeps_the_schema(table, files):
    partition = dict.fromkeys(TABLES[table].by, 0)
    lake.write(files, table, [], **partition)
    assert lake.scan(table, files.uri).collect().schema == TABLES[table].schema
    assert lake.read_partition(files, table, **partition).schema == TABLES[table].schema


def test_a_rewrite_replaces_its_partition_and_no_other(any_store):
    write(any_store, rows(5))
    write(any_store, rows(5, seed=1), seed=1)
    write(any_store, rows(2, loss=9.0))
    found = lake.scan("training", any_store.uri).collect()
    assert found.filter(seed=0)["loss"].to_list() == [9.0, 9.0]
    assert len(found.filter(seed=1)) == 5


def test_what_is_written_is_read_by_partition(any_store):
    assert lake.read_partition(any_store, "training", recipe="tiny.opd", seed=0) is None
    write(any_store, rows())
    assert lake.read_partition(any_store, "training", recipe="tiny.opd", seed=0).height == 3
    assert lake.read_partition(any_store, "training", recipe="tiny.opd", seed=1) is None


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
        lake.read_partition(files, "training", recipe="tiny.opd", seed=0)


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
    write(Store(default_uri()), rows())
    assert lake.scan("training").collect().height == 3
    assert lake.scan("training", str(tmp_path / "run[1] 50%20 * größe")).collect().height == 3


# Beside partitions that hold rows of (tiny.opd, 0), (tiny.opd, 1) and (tiny.sft, 0).
OTHERS = (
    "recipe=tiny.opd/seed=0 copy/part-0.parquet",
    "recipe=tiny.opd/seed=0.bak/part-0.parquet",
    "recipe=tiny.opd/seed=0 (1)/part-0.parquet",
    "recipe=tiny.opd/seed=00/part-0.parquet",
    "recipe=tiny.opd/seed=-0/part-0.parquet",
    "recipe=tiny.opd/seed=1e0/part-0.parquet",
    "recipe=tiny.opd/seed=/part-0.parquet",
    "recipe=tiny.opd/old/seed=0/part-0.parquet",
    "recipe=tiny.opd/seed=0/seed=0/part-0.parquet",
    "recipe=tiny.opd/seed=0/part-0 (1).parquet",
    "recipe=tiny.opd/seed=0/part-0 copy.parquet",
    "recipe=tiny.opd/seed=0/part-1.parquet",
    "recipe=tiny.opd/seed=0/part-0.parquet.tmp",
    "recipe=tiny.opd/seed=0/.part-0.parquet.0123",
    "recipe=tiny.opd/part-0.parquet",
    "recipe=tiny.opd copy/seed=0/part-0.parquet",
    "Copy of recipe=tiny.opd/seed=0/part-0.parquet",
    "recipe=/seed=0/part-0.parquet",
    "seed=0/recipe=tiny.opd/part-0.parquet",
    "study=tiny/part-0.parquet",
    "training/recipe=tiny.opd/seed=0/part-0.parquet",
    "part-0.parquet",
    "x.parquet",
)


@pytest.mark.parametrize("other", OTHERS)
def test_what_lies_beside_partitions_is_not_read_and_named_once(other, tmp_path, caplog):
    store = Store(f"file://{tmp_path}/store")
    data = store.read(write(store, rows()))
    write(store, rows(2, seed=1), seed=1)
    write(store, rows(1, recipe="tiny.sft"), recipe="tiny.sft")
    before = lake.scan("training", store.uri).collect()
    assert not caplog.records
    store.write(f"lake/training/{other}", data)
    for _ in range(2):
        assert lake.scan("training", store.uri).collect().equals(before)
        assert lake.scan("training", store.uri, recipe="tiny.opd", seed=0).collect().height == 3
        assert lake.scan("training", store.uri).filter(seed=0).select(pl.len()).collect().item() == 4
    (said,) = {record.getMessage() for record in caplog.records}
    assert len([record for record in caplog.records if record.getMessage() == said]) == 1
    assert said == (
        f"{store.uri}/lake/training/{other} is no partition of the table training and is not read; move it out of the "
        "store (`opd verify` names it)"
    )
    assert [(f.kind, f.key) for f in audit(store).findings] == [("foreign", f"lake/training/{other}")]


def test_copies_among_many_partitions_are_one_line_and_none_on_s3(s3, caplog):
    data = s3.read(write(s3, rows()))
    for other in OTHERS[:3]:
        s3.write(f"lake/training/{other}", data)
    assert lake.scan("training", s3.uri).collect().height == lake.scan("training", s3.uri).collect().height == 3
    (record,) = caplog.records
    assert record.getMessage().endswith(
        " and 2 more are no partition of the table training and are not read; "
        "move them out of the store (`opd verify` names them)"
    )


def test_a_table_of_a_study_is_read_the_same(files, caplog):
    data = files.read(lake.write(files, "verdicts", [], study="tiny"))
    for other in ("study=tiny copy/part-0.parquet", "study=tiny/part-0 (1).parquet", "study=tiny/x/part-0.parquet"):
        files.write(f"lake/verdicts/{other}", b"no Parquet")
    assert lake.scan("verdicts", files.uri).collect().is_empty() and data
    assert len(caplog.records) == 1


def test_what_is_being_written_beside_a_partition_is_not_spoken_of(files, caplog):
    write(files, rows())
    files.write(f"lake/training/recipe=tiny.opd/seed=0/.part-0.parquet.{'0' * 32}", b"half")
    assert lake.scan("training", files.uri).collect().height == 3
    assert not caplog.records


@pytest.mark.parametrize("other", [o for o in OTHERS if o.startswith("recipe=tiny.opd/seed=0/")])
def test_the_patterns_for_other_readers_leave_out_files_beside_a_partition(other, files):
    write(files, rows())
    files.write(f"lake/training/{other}", b"no Parquet")
    plain = pl.scan_parquet(
        f"{files.path('lake/training')}/recipe=*/seed=*/part-0.parquet", hive_partitioning=True
    ).collect()
    assert plain.select(TABLES["training"].schema.names()).equals(lake.scan("training", files.uri).collect())


@pytest.mark.parametrize("kind", ["file", "memory", "s3"])
def test_a_store_that_does_not_exist_is_an_error_and_one_without_the_table_is_not(kind, request, tmp_path, monkeypatch):
    uri = {"file": f"file://{tmp_path}/nothing", "memory": f"memory://{tmp_path}"}.get(kind)
    uri = uri or f"{request.getfixturevalue('s3').uri}/nothing"
    message = f"the store {uri} does not exist; name one that does, or set OPD_STORE to it"
    for partition in ({}, {"recipe": "tiny.opd"}):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            lake.scan("training", uri, **partition)
    monkeypatch.setenv("OPD_STORE", uri)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lake.scan("training")
    Store(uri).write("runs/x", b"")
    assert lake.scan("training").collect().is_empty()


def test_a_key_with_a_space_is_refused_since_copies_have_them(files):
    with pytest.raises(ValueError, match=r"^'tiny\.opd copy' has a space, which no key of a table has; leave it out$"):
        write(files, rows(), recipe="tiny.opd copy")


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
    assert s3_options() == {
        "aws_region": "eu-west-1",
        "aws_access_key_id": "me",
        "aws_endpoint_url": endpoint,
        "aws_allow_http": str(endpoint.startswith("http:")).lower(),
    }


def of_one_table(frame):
    """A partition's file, written of all rows as one Arrow table; the digest is that of `lake.encoded`."""
    buffer, table = io.BytesIO(), frame.to_arrow().replace_schema_metadata()
    how = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
    digest = pq.ParquetFile(io.BytesIO(encode_partition(frame))).metadata.metadata[DIGEST]
    with pq.ParquetWriter(buffer, table.schema, **how) as file:
        file.write_table(table)
        file.add_key_value_metadata({DIGEST: digest})
    return buffer.getvalue()


def planted(table, count, seed=0):
    """Rows with every kind of value, and nulls among them."""
    draw = random.Random(seed)
    values = {
        pl.String: lambda: draw.choice((None, "", "é", "a longer text than twelve bytes")),
        pl.Int64: lambda: draw.choice((None, -3, 2**62)),
        pl.Float64: lambda: draw.choice((None, draw.random(), float("inf"))),
        pl.Boolean: lambda: draw.choice((None, True, False)),
        pl.List: lambda: draw.choice(([], [1, 2], None)),
    }
    schema = TABLES[table].schema
    return [{name: values[kind.base_type()]() for name, kind in schema.items()} for _ in range(count)]


@pytest.mark.parametrize("table", ["locking", "nulls", "evaluation"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_columns_in_pieces_give_the_file_of_their_rows(table, count):
    found, schema = planted(table, count), TABLES[table].schema
    expected = file_of(table, found)
    assert (
        expected
        == file_of(table, pl.DataFrame(found, schema=schema))
        == of_one_table(pl.DataFrame(found, schema=schema))
    )
    pieces = [found[:7], [], found[7:]]
    by_row = [compact(table, piece, {}) for piece in pieces]
    by_column = [compact(table, {name: [row[name] for row in piece] for name in schema}, {}) for piece in pieces]
    for frames in (by_row, by_column):
        assert file_of(table, pl.concat(frames, rechunk=False)) == expected


def test_the_digest_is_of_all_texts_of_a_column_however_many_are_joined_at_once(monkeypatch):
    frame = pl.DataFrame(planted("locking", 20), schema=TABLES["locking"].schema)
    whole = encode_partition(frame)
    for count in (1, 7, 20):
        monkeypatch.setattr("pipelines.lake.lake.TEXTS", count)
        assert encode_partition(frame) == whole


def test_row_groups_are_those_of_one_table():
    """Texts are made for one row group at a time."""
    frame = pl.DataFrame(planted("training", 300), schema=TABLES["training"].schema)
    many = pl.concat([frame] * (GROUP // 300 + 2), rechunk=False)
    texts = many.with_columns(pl.col(pl.String).cast(pl.Categorical))
    assert encode_partition(texts) == of_one_table(many)
    assert pq.ParquetFile(io.BytesIO(encode_partition(texts))).metadata.num_row_groups == 2


def test_constants_stand_in_every_row_and_what_is_nowhere_is_null():
    facts = {"study": "s", "recipe": "s.a", "seed": 3}
    frame = compact("training", {"step": [1, 2]}, facts)
    assert frame.schema["recipe"] == pl.Categorical and frame["tokens"].null_count() == 2
    expected = [facts | {"step": step} for step in (1, 2)]
    assert file_of("training", frame) == file_of("training", expected)
    assert file_of("training", compact("training", [{"step": 1}, {"step": 2}], facts)) == file_of("training", expected)
    assert len(compact("training", {}, facts)) == len(compact("training", [], facts)) == 0


@pytest.mark.parametrize(
    ("rows", "constants", "said"),
    [
        ({"step": [1], "other": [2]}, {}, r"undeclared columns \['other'\]"),
        ([{"step": 1}], {"other": 2}, r"undeclared columns \['other'\]"),
        ({"step": ["one"]}, {}, "column training.step: "),
        ([{"step": 1}], {"seed": "zero"}, "column training.seed: "),
    ],
)
def test_columns_that_do_not_fit_are_refused(rows, constants, said):
    with pytest.raises(ValueError, match=said):
        compact("training", rows, constants)
