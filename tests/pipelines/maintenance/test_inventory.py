"""Every object the project writes has a kind; nothing else has one."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry import VERSION
from pipelines import lake
from pipelines.maintenance.inventory import Inventory, classify, parse_run
from pipelines.store.bases import BaseCache
from pipelines.store.names import require_name, stays_inside
from pipelines.store.objects import Store
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.test_rollouts import row

RUN = ("tiny.opd", 3)
HEX = "5d1ad477a9494ce09ac8118c2bcf5e6b"
W = {"w": torch.ones(2, 2)}


def test_what_the_project_writes_is_known_with_its_run_and_step(tmp_path):
    store = Store(f"file://{tmp_path}/a store")
    run = Trajectory(store, *RUN)
    run.register({"identity": {}, "fingerprint": "", "inputs": {}, "provenance": {}})
    run.commit(5, W, None)
    run.save_moments(5, 5, W)
    run.save_resume(7, W, {})
    rollouts = Rollouts(store, run.prefix)
    rollouts.append([row(1), row(2)])
    rollouts.flush()
    store.write(f"{run.prefix}/end.json", b"{}")
    lake.write(store, "training", [], recipe="tiny.opd", seed=3)
    lake.write(store, "verdicts", [], study="tiny")
    BaseCache(store, "runs/x w").save("d1", "triplets-64", W)
    found = {(item.kind, item.run, item.step, item.name) for item in Inventory(store.list_objects("")).items}
    assert found == {
        ("run", RUN, None, "run.json"),
        ("end", RUN, None, "end.json"),
        ("manifest", RUN, 5, "manifest.json"),
        ("weights", RUN, 5, "master.safetensors"),
        ("moments", RUN, 5, "state.safetensors"),
        ("moments", RUN, 5, "facts.json"),
        ("resume", RUN, 7, "state.safetensors"),
        ("resume", RUN, 7, "facts.json"),
        ("rollouts", RUN, None, "steps-00000001-00000002.parquet"),
        ("table", RUN, None, "part-0.parquet"),
        ("table", None, None, "part-0.parquet"),
        ("base", None, None, "triplets-64.safetensors"),
        ("base", None, None, "triplets-64.json"),
        ("base", None, None, "d1"),
    }


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("models/smollm2-135m-instruct/model.safetensors", "model"),
        (f"bases/0ab/v{VERSION}/spectrum.json", "base"),
        (f"scores/fresh-0/{'0' * 64}.parquet", "score"),
        ("reports/tiny/index.html", "report"),
        ("watched/mine.json", "watch"),
        (f"runs/a/seed-0/measured/model.layers.0%2Fq/{'0' * 24}.safetensors", "part"),
        ("runs/external.a/seed-0/import.json", "record"),
        ("runs/external.a/seed-0/import-00000012.json", "record"),
        ("runs/external.a/seed-0/import-12.json", "foreign"),
        ("lake/bench/commit=abc/part-0.parquet", "table"),
        (f".probe-{HEX}", "temporary"),
        (f"..probe-{HEX}.{HEX}", "temporary"),
        (f"runs/a/seed-0/step-00000001/.master.safetensors.{HEX}", "temporary"),
        (f"lake/bench/commit=abc/.part-0.parquet.{HEX}", "temporary"),
        (f"notes/.todo.{HEX}", "foreign"),
        (f"runs/a/seed-0/..end.json.{HEX}.{HEX}", "foreign"),
        ("runs/a/seed-0/.run.json.0", "foreign"),
        ("runs/a/seed-00/run.json", "foreign"),
        ("runs/a/seed-0/step-1/manifest.json", "foreign"),
        ("runs/a/seed-0/step-00000001/model.bin", "foreign"),
        ("runs/a/seed-0/run.json\n", "foreign"),
        ("lake/none/recipe=a/seed=0/part-0.parquet", "foreign"),
        ("lake/training/study=a/part-0.parquet", "foreign"),
        ("lake/training/seed=0/recipe=a/part-0.parquet", "foreign"),
        ("notes.txt", "foreign"),
        ("runs/../end.json", "foreign"),
        ("", "foreign"),
    ],
)
def test_a_name_tells_the_kind(key, kind):
    assert classify(key).kind == kind


@given(st.lists(st.sampled_from(["runs", "a", "seed-0", "..", ".", "", "end.json", "x\\y", "\x00", "models", "b"])))
def test_no_name_that_leaves_the_store_is_anything_but_foreign(parts):
    key = "/".join(parts)
    item = classify(key)
    assert item.key == key
    if not stays_inside(key):
        assert (item.kind, item.run) == ("foreign", None)
    if item.kind != "foreign":
        Store("memory://a").path(key)


@given(st.text())
def test_any_text_is_classified(text):
    assert classify(f"runs/{text}").kind and classify(text).kind


def test_a_listing_tells_size_and_age_on_every_store(any_store):
    before = time.time()
    any_store.write("runs/a", b"123")
    any_store.write("b", b"")
    found = any_store.list_objects("")
    assert {key: listed.size for key, listed in found.items()} == {"b": 0, "runs/a": 3}
    assert all(abs(listed.modified - before) < 60 for listed in found.values())
    assert list(any_store.list_objects("runs")) == ["runs/a"] and any_store.list_objects("none") == {}


def test_a_run_is_named_by_recipe_and_seed():
    assert parse_run("tiny.opd") == ("tiny.opd", None)
    assert parse_run("tiny.opd/12") == parse_run("tiny.opd/seed-12") == ("tiny.opd", 12)


@pytest.mark.parametrize("text", ["", "..", "/x", "a/", "a/b", "a/-1", "a/01", "../a/0", "a/0/..", "a\\b", "a\nb", "."])
def test_what_names_no_run_is_one_line(text):
    with pytest.raises(ValueError, match=r"^(recipe '.*' is no name: leave|'.*' names no run: write) [^\n]*$"):
        parse_run(text)


def test_a_name_of_one_folder_leads_nowhere_else():
    assert require_name("a.b", "recipe") == "a.b"
    with pytest.raises(ValueError, match=r"^recipe '\.\.' is no name: leave out"):
        require_name("..", "recipe")
