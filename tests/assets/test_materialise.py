"""Jobs executed for real, over stores whose runs are complete, so that nothing trains.

The file is longer than 350 lines because each kind of partition is materialised over the same planted stores.
"""

import hashlib
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from assets import geometry, models, offers
from assets.lane import reason
from assets.metadata import PAGES_PORT, small_table
from assets.partitions import STUDIES, anchor_key, run_key
from opd_ops.models import configuration
from opd_ops.recipe import Fresh
from pipelines import lake
from pipelines.runs.geometry.measuring import TABLES, is_measured
from pipelines.runs.resources.needs import count_gpus
from pipelines.runs.trajectories.starts import folder_digest
from pipelines.statistics.markdown import escape_markdown
from pipelines.studies import qwen3
from tests.assets.conftest import checks, shown

TINY = STUDIES["tiny"]
SFT, OPD = TINY.every_arm()[:2]
WHERE = {"recipe": "tiny.opd", "seed": 0}


@pytest.fixture
def ready(store, settle):
    """ready(accuracy): the store with tiny.opd seed 0 and all it comes from trained, and nothing measured."""

    def make(accuracy=(0.3, 0.9)):
        for recipe in (*TINY.models, SFT):
            settle(store, recipe)
        return settle(store, OPD, 0, accuracy)

    return make


@pytest.fixture
def opd(execute):
    """opd(): the job of tiny.opd seed 0."""
    return lambda: execute("runs", run_key("tiny.opd", 0))


def test_a_complete_run_is_registered_and_measured(store, ready, opd):
    trajectory = ready()
    result = opd()
    assert result.success
    found = shown(result)
    assert set(found) == {"trajectory", "training", "evaluation", *TABLES}
    for table in ("training", "evaluation", *TABLES):
        rows = lake.scan(table, store.uri).filter(**WHERE).collect()
        assert rows.height > 0
        assert found[table]["dagster/partition_row_count"].value == rows.height
        assert found[table]["dagster/uri"].value == f"{store.uri}/lake/{table}/recipe=tiny.opd/seed=0/part-0.parquet"
    assert found["trajectory"]["digest"].value == trajectory.digest(4)
    assert (found["trajectory"]["steps"].value, found["trajectory"]["snapshots"].value) == (4, 3)
    assert found["trajectory"]["recipe"].value == OPD.identity()
    assert is_measured(store, OPD, 0, TINY.measurement)


def test_every_materialization_carries_what_one_looks_for(store, ready, opd):
    ready()
    for asset, told in shown(opd()).items():
        assert told["report"].value == f"http://127.0.0.1:{PAGES_PORT}/tiny/index.html"
        assert told["step_wall_s"].value >= told["step_cpu_s"].value * 0.5 and told["step_cpu_s"].value >= 0
        serial = "not used: serial" if asset in TABLES else "not used: found complete"
        assert told["ray"].value.startswith(serial) and "ray_workers" not in told
        if asset == "trajectory":
            place = f"{store.uri}/runs/tiny.opd/seed-0"
            assert told["manifest"].value == f"{place}/step-00000004/manifest.json"
            continue
        data = store.read(told["dagster/uri"].value.removeprefix(f"{store.uri}/"))
        assert told["bytes"].value == len(data)
        assert told["figure"].value.startswith("![") and "(data:image/svg+xml;base64," in told["figure"].value
    timing = lake.read_partition(store, "timing", **WHERE).filter(phase="measure").row(0, named=True)
    told = shown(opd())["rotation"]  # found now, with the seconds of when it was made
    assert told["wall_s"].value == round(timing["wall_s"], 3) and told["cpu_s"].value == round(timing["cpu_s"], 3)
    assert f"| measure | {timing['wall_s']:.4g} | {timing['cpu_s']:.4g} |" in told["phases"].value


def test_a_table_is_versioned_by_its_bytes(store, ready, opd, instance):
    ready()
    opd()
    for table in ("evaluation", "rotation"):
        event = instance.get_latest_materialization_event(dg.AssetKey(table))
        data = store.read(f"lake/{table}/recipe=tiny.opd/seed=0/part-0.parquet")
        assert event.asset_materialization.tags["dagster/data_version"] == hashlib.sha256(data).hexdigest()


def test_a_figure_is_the_mean_over_projections_by_step(store, ready, opd):
    ready()
    opd()
    rows = lake.read_partition(store, "rotation", **WHERE)
    means = rows.filter(pl.col("role") == "q", pl.col("side") == "input").sort("view", "step")
    expected = {view: part.select("step", "mean_deg").rows() for (view,), part in means.group_by("view")}
    assert geometry.lines("rotation", rows) == expected
    locking = geometry.lines("locking", lake.read_partition(store, "locking", **WHERE))
    assert {tuple(step for step, _ in line) for line in locking.values()} == {(2,)}  # beside the last step, 4


def test_every_table_shows_means_at_the_last_step_that_has_rows(store, ready, opd):
    ready()
    found = shown(opd())
    rows = lake.read_partition(store, "rotation", **WHERE).filter(pl.col("step") == 4, pl.col("role") == "q")
    lines = found["rotation"]["last_step"].value.splitlines()
    assert len(lines) == 2 + rows.height
    for row in rows.iter_rows(named=True):
        assert f"| {row['view']} | {row['side']} | {row['k']} | 4 | {row['mean_deg']:.4g} | 1 |" in lines


def test_every_table_tells_its_rows_apart_and_shows_a_column_it_has(store, ready, opd):
    ready()
    found = shown(opd())
    for table in TABLES:
        heading, _, *lines = found[table]["last_step"].value.splitlines()
        assert heading.split(" | ")[-2:] == [f"mean {geometry.value_column(table)}", "matrices |"]
        assert lines and all(line.endswith("| 1 |") for line in lines), table  # the one projection, each row once


def test_nulls_are_shown_one_by_one(store, ready, opd):
    ready()
    lines = shown(opd())["nulls"]["last_step"].value.splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| bf16", "fixed_direction"],
        ["| bf16", "shuffled"],
        ["| master", "shuffled"],
    ]


def test_the_checks_of_a_good_run_pass(ready, opd):
    ready()
    found = checks(opd())
    assert {name: check.passed for name, check in found.items()} == {
        "snapshots_readable": True,
        "learning_happened": True,
        "guard_rail": True,
        "weights_finite": True,
        "within_band": True,
    }
    assert found["learning_happened"].metadata["gain"].value == pytest.approx(0.6)
    assert found["snapshots_readable"].metadata["snapshots"].value == 3


def test_a_second_materialization_measures_nothing(store, ready, opd, monkeypatch):
    ready()
    before = shown(opd())
    monkeypatch.setattr(
        "pipelines.runs.geometry.measuring.measure_tasks", lambda *_, **__: pytest.fail("measured again")
    )
    assert {k: v["dagster/uri"] for k, v in shown(opd()).items()} == {k: v["dagster/uri"] for k, v in before.items()}


def test_the_data_version_is_the_digest_of_the_weights(ready, opd, instance):
    trajectory = ready()
    opd()
    event = instance.get_latest_materialization_event(dg.AssetKey("trajectory"))
    assert event.asset_materialization.tags["dagster/data_version"] == trajectory.digest(4)


@pytest.mark.parametrize("damage", ["flipped", "absent"])
def test_an_unreadable_snapshot_blocks_the_measurement(damage, store, ready, opd):
    trajectory = ready()
    key = f"{trajectory.prefix}/step-00000002/{'master.safetensors' if damage == 'flipped' else 'manifest.json'}"
    if damage == "flipped":
        data = bytearray(store.read(key))
        data[-5] ^= 1
        store.write(key, bytes(data))
    else:
        store.remove(key)
    result = opd()
    assert not result.success
    check = checks(result)["snapshots_readable"]
    assert not check.passed and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR
    assert ("step-00000002" if damage == "flipped" else "step 2 ") in check.metadata["problems"].value
    assert not set(TABLES) & set(shown(result))
    assert not set(TABLES) & set(store.list("lake"))
    assert reason(result) == f"snapshots_readable: {check.metadata['problems'].value}"
    assert "geometry" not in {event.step_key for event in result.all_events if event.is_step_start}


HOSTILE = ("<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://a/b.png)", "`a` | b", "a\nb\x1b[2J")


def test_names_in_problems_are_text_that_the_ui_shows_as_it_is(store, ready, opd, monkeypatch):
    ready()
    monkeypatch.setattr(
        "pipelines.store.integrity.find_problems", lambda trajectory, step: list(HOSTILE) if step == 2 else []
    )
    found = checks(opd())["snapshots_readable"].metadata["problems"]
    assert isinstance(found, dg.TextMetadataValue)
    assert found.value.split("\n") == [*HOSTILE[:4], "a\\nb\\x1b[2J"]


def test_markdown_is_made_of_escaped_tables_and_own_words_alone():
    """Everything else that Dagster shows is text; `metadata` escapes what it puts into a table."""
    sources = {path.name: path.read_text() for path in Path(geometry.__file__).parent.glob("*.py")}
    assert {name for name, text in sources.items() if "MetadataValue.md(" in text} == {"metadata.py", "verdicts.py"}
    table = str(small_table([{"name": name} for name in HOSTILE]).value).splitlines()[2:]
    assert table == [f"| {escape_markdown(name)} |" for name in HOSTILE]


def test_a_snapshot_that_was_damaged_since_its_run_was_found_whole_is_not_measured(store, ready, execute):
    """The tables alone are asked for, so nobody looks at the trajectory again but who measures it."""
    trajectory = ready()
    key = f"{trajectory.prefix}/step-00000002/master.safetensors"
    data = bytearray(store.read(key))
    data[-5] ^= 1
    store.write(key, bytes(data))
    result = execute("runs", run_key(OPD.name, 0), *TABLES)
    assert not result.success
    assert key in reason(result) and "so nothing is computed from it" in reason(result)
    assert not set(TABLES) & set(store.list("lake"))


@pytest.mark.parametrize(
    ("accuracy", "passed"), [((0.3, 0.9), True), ((0.5, 0.5), False), ((0.5, 0.55), False), ((0.9, 0.3), False)]
)
def test_learning_happened_warns_unless_accuracy_rose_beyond_its_error(accuracy, passed, ready, opd):
    ready(accuracy)
    result = opd()
    assert result.success
    check = checks(result)["learning_happened"]
    assert check.passed is passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert (check.metadata["start"].value, check.metadata["end"].value) == accuracy
    assert check.metadata["standard_error"].value == pytest.approx(0.02 * 2**0.5)


def test_a_weight_that_is_not_finite_fails_its_check_and_no_other_table(store, ready, opd, settle):
    for recipe in (*TINY.models, SFT):
        settle(store, recipe)
    trajectory = settle(store, OPD)
    bad = {name: ref.read().clone() for name, ref in trajectory.refs(4).items()}
    bad["model.norm.weight"][3] = torch.nan
    for key in ("step-00000004", "end.json"):
        store.remove(f"{trajectory.prefix}/{key}")
    trajectory.commit(4, bad, None)
    trajectory.finish({"step": 4, "digest": trajectory.digest(4), "snapshots": [0, 2, 4], "evaluation": []})
    result = opd()
    assert result.success
    check = checks(result)["weights_finite"]
    assert not check.passed
    problems = check.metadata["problems"]
    assert isinstance(problems, dg.TextMetadataValue) and "model.norm" in problems.value
    assert set(shown(result)) >= set(TABLES)


@pytest.mark.parametrize(
    ("job", "partition", "told"),
    [
        ("runs", run_key("qwen3-8b.opd", 2), "study qwen3-8b has no seed 2; it has: 0"),
        ("anchors", anchor_key("qwen3-8b", 2), "study qwen3-8b has no seed 2; it has: 0"),
        ("anchors", anchor_key("smollm", 0), "study smollm has no anchor: its arms start from other weights"),
        ("runs", "tiny.opd", "partition 'tiny.opd' is no RECIPE|SEED, as tiny.opd|0"),
        ("runs", "mine.opd|0", "no study is called 'mine': name the file of its study"),
        ("comparison", "mine", "there is no study 'mine'; known: "),
    ],
)
def test_a_partition_that_is_typed_in_the_ui_and_is_none_fails_in_one_line(
    job, partition, told, store, instance, execute
):
    instance.add_dynamic_partitions(offers.BY_JOB[job], [partition])
    result = execute(job, partition)
    assert not result.success
    assert reason(result).startswith(told) and "\n" not in reason(result)
    assert store.find("") == []


@pytest.mark.parametrize(
    ("job", "partition"), [("anchors", anchor_key("qwen3-8b", 0)), ("runs", run_key("qwen3-8b.sft", 0))]
)
def test_a_run_that_this_machine_cannot_make_fails_in_one_line(job, partition, store, execute, monkeypatch):
    monkeypatch.setattr("pipelines.runs.resources.needs.present", lambda: 0.0)
    monkeypatch.setattr(models, "train", lambda *_, **__: pytest.fail("trained"))
    result = execute(job, partition)
    assert not result.success
    told = reason(result)
    assert told.startswith("qwen3-8b cannot run here: ") and "\n" not in told
    assert f"{count_gpus(qwen3.sft()):g} GPUs are needed and 0 found" in told and "sft.jsonl" in told
    assert store.find("") == []


def test_a_complete_run_needs_nothing_of_this_machine(store, settle, execute, monkeypatch):
    monkeypatch.setattr("pipelines.runs.resources.needs.present", lambda: pytest.fail("looked for"))
    settle(store, qwen3.sft())
    assert execute("anchors", anchor_key("qwen3-8b", 0)).success


def test_a_run_without_its_parents_fails_in_one_line(store, execute):
    result = execute("runs", run_key("tiny.opd", 1))
    assert not result.success
    assert (
        reason(result) == "tiny.opd seed 1 needs tiny.sft seed 1, which is not complete: "
        "train it first: opd study run tiny --recipe tiny.sft --seed 1"
    )
    assert store.find("") == []


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_complete_run_whose_table_is_gone_fails_in_one_line(name, store, ready, opd):
    ready()
    store.remove(f"lake/{name}/recipe=tiny.opd")
    result = opd()
    assert not result.success
    told = reason(result)
    assert told.startswith("tiny.opd seed 0 is complete and ") and "\n" not in told
    assert f"lake/{name}/recipe=tiny.opd/seed=0 is gone: bring it back, or move the run aside" in told


def test_weights_that_are_absent_fail_in_one_line(store, execute):
    result = execute("models", "smollm")
    assert not result.success
    assert "run `make weights` first" in reason(result) and "\n" not in reason(result)


def shown_models(execute, study):
    """Metadata of a study's base and teacher."""
    return shown(execute("models", study)) | shown(execute("teachers", study))


def test_models_that_were_trained_elsewhere_are_known_by_their_digest(store, execute):
    folder = store.path(STUDIES["smollm"].weights)
    start = TINY.models[0].start
    assert isinstance(start, Fresh)
    config = configuration(start.architecture, pad=0, bos=1, eos=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    digest, found = folder_digest(Path(folder)), shown_models(execute, "smollm")
    assert {name: told["digest"].value for name, told in found.items()} == {"base": digest, "teacher": digest}
    assert {name: told["source"].value for name, told in found.items()} == {
        "base": "weights that were trained elsewhere",
        "teacher": "the base itself, reading the privileged prompt",
    }


def test_a_teacher_that_an_arm_names_is_not_the_base(execute):
    found = shown_models(execute, "qwen3-8b")
    assert {name: told["weights"].value for name, told in found.items()} == {
        "base": qwen3.BASE,
        "teacher": qwen3.TEACHER,
    }
    for told in found.values():
        assert told["source"].value.startswith("weights that were trained elsewhere; a name of the hub")
        assert told["digest"].value == told["weights"].value


def test_models_and_anchors_are_found_where_they_are_complete(store, execute, ready):
    ready()
    found = shown_models(execute, "tiny")
    assert {name: m["dagster/uri"].value for name, m in found.items()} == {
        "base": f"{store.uri}/runs/tiny.base/seed-0",
        "teacher": f"{store.uri}/runs/tiny.teacher/seed-0",
    }
    (anchor,) = shown(execute("anchors", anchor_key("tiny", 0))).values()
    assert anchor["dagster/uri"].value == f"{store.uri}/runs/tiny.sft/seed-0"
