"""A run that is copied arrives as it was, or not at all, and a copy that was stopped goes on."""

import json
import uuid

import pytest
import torch

from pipelines import lake
from pipelines.maintenance import copying
from pipelines.maintenance.audit import audit
from pipelines.maintenance.copying import copy_run
from pipelines.store.checksum import add_checksum
from pipelines.store.objects import Listed, Store
from pipelines.store.trajectory import Trajectory
from tests.pipelines.maintenance.planted import NAME, STEPS, contents, facts, furnish, plant, weights

RUN = "runs/tiny.opd/seed-0"


@pytest.fixture
def target():
    return Store(f"memory://{uuid.uuid4().hex}")


def of_run(store, recipe=NAME, seed=0):
    mine = f"runs/{recipe}/seed-{seed}/", f"recipe={recipe}/seed={seed}/"
    return {key: data for key, data in contents(store).items() if key.startswith(mine[0]) or mine[1] in key}


def refused(source, target, *parts, recipe=NAME, seed=0):
    """One line, and nothing is written."""
    before = contents(target)
    with pytest.raises(ValueError) as caught:
        copy_run(source, target, recipe, seed)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert contents(target) == before


def test_a_run_arrives_bit_for_bit_and_opens(near, target):
    furnish(near)
    moved = copy_run(near, target, NAME, 0)
    assert contents(target) == of_run(near) and sorted(moved.copied) == sorted(of_run(near))
    assert (moved.there, moved.kept, moved.left) == ([], [], [])
    assert moved.nbytes == sum(map(len, of_run(near).values()))
    assert audit(target, deep=True).findings == ()
    run = Trajectory(target, NAME, 0)
    for step in STEPS:
        assert all(torch.equal(ref.read(), weights(step)[name]) for name, ref in run.refs(step).items())
    assert run.load_moments(1)[0] == 1


def test_it_arrives_on_every_kind_of_store(any_store, memory):
    plant(memory, steps=(0, 1), extras=False)
    copy_run(memory, any_store, NAME, 0)
    assert contents(any_store) == contents(memory)
    back = Store(f"memory://{uuid.uuid4().hex}")
    copy_run(any_store, back, NAME, 0)
    assert contents(back) == contents(memory)


def test_a_second_copy_does_nothing(furnished, target):
    copy_run(furnished, target, NAME, 0)
    before = target.list_objects("")
    moved = copy_run(furnished, target, NAME, 0)
    assert (moved.copied, moved.kept) == ([], []) and sorted(moved.there) == sorted(of_run(furnished))
    assert target.list_objects("") == before


def test_a_run_that_is_being_trained_takes_its_resume_state_along(furnished, target):
    copy_run(furnished, target, "tiny.rlvr", 2)
    assert contents(target) == of_run(furnished, "tiny.rlvr", 2)
    assert Trajectory(target, "tiny.rlvr", 2).load_resume()[0] == 7


def test_weights_alone(furnished, target):
    moved = copy_run(furnished, target, NAME, 0, weights_only=True)
    kinds = ("rollouts", "measured", "lake")
    assert contents(target) == {k: d for k, d in of_run(furnished).items() if not any(kind in k for kind in kinds)}
    assert moved.left == [] and audit(target).findings == ()
    assert len(copy_run(furnished, target, NAME, 0).copied) > 0
    assert contents(target) == of_run(furnished)


def test_a_copy_that_is_stopped_anywhere_is_no_complete_run_and_goes_on(furnished, monkeypatch):
    count, create = len(of_run(furnished)), Store.create
    for stop in range(count):
        target, left = Store(f"memory://{uuid.uuid4().hex}"), [stop]

        def stopping(store, key, data, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            create(store, key, data)

        monkeypatch.setattr(Store, "create", stopping)
        with pytest.raises(KeyboardInterrupt):
            copy_run(furnished, target, NAME, 0)
        monkeypatch.setattr(Store, "create", create)
        run = Trajectory(target, NAME, 0)
        assert run.end() is None
        for step in run.steps():
            assert run.verify(step) == []
            assert all(torch.equal(ref.read(), weights(step)[name]) for name, ref in run.refs(step).items())
        assert not target.exists(f"{RUN}/measured.json") or target.exists("lake/rotation/recipe=tiny.opd/seed=0")
        copy_run(furnished, target, NAME, 0)
        assert contents(target) == of_run(furnished)


def test_a_damaged_copy_is_repaired_from_the_source(furnished, target):
    copy_run(furnished, target, NAME, 0)
    for key in of_run(furnished):
        if "/measured.json" in key or not key.startswith("runs"):
            continue
        data = target.read(key)
        target.write(key, data[:-3])
        assert copy_run(furnished, target, NAME, 0).copied == [key]
        target.remove(key)
        assert copy_run(furnished, target, NAME, 0).copied == [key]
    assert contents(target) == of_run(furnished)


def test_what_is_damaged_at_the_source_is_not_copied(furnished, target):
    key = f"{RUN}/step-00000007/master.safetensors"
    furnished.write(key, furnished.read(key)[:-1] + b"x")
    with pytest.raises(ValueError, match=r"step-00000007/master\.safetensors is damaged, and the copy ends before it"):
        copy_run(furnished, target, NAME, 0)
    assert Trajectory(target, NAME, 0).steps() == [0, 1, 3] and Trajectory(target, NAME, 0).end() is None
    furnished.write(f"{RUN}/step-00000003/manifest.json", b"{}")
    refused(furnished, Store(f"memory://{uuid.uuid4().hex}"), "step-00000003/manifest.json has layout None", "verify")


def test_what_arrives_as_something_else_is_an_error(furnished, target, monkeypatch):
    create = Store.create
    monkeypatch.setattr(Store, "create", lambda s, key, data: create(s, key, data[:-1] if "0007" in key else data))
    with pytest.raises(ValueError, match=r"step-00000007/master\.safetensors did not arrive as it was sent"):
        copy_run(furnished, target, NAME, 0)
    assert Trajectory(target, NAME, 0).steps() == [0, 1, 3]
    monkeypatch.setattr(Store, "create", create)
    copy_run(furnished, target, NAME, 0)
    assert contents(target) == of_run(furnished)


def test_another_run_of_the_name_is_refused_with_the_fields(furnished, target):
    other = facts(NAME, 0, start="4567")
    other["identity"] = {"arm": "another"} | {"start": {"kind": "fresh"}}
    plant(target, start=other, extras=False)
    refused(
        furnished, target, "holds another run of that name", 'identity.arm: "another" -> "tiny.opd"', "inputs.start"
    )


def test_other_weights_under_the_name_are_refused_with_the_step(furnished, target):
    run = Trajectory(target, NAME, 0)
    run.register(facts(NAME, 0))
    run.commit(0, weights(0), None)
    run.commit(3, weights(4), 0)
    refused(furnished, target, "holds other weights of step 3")


def test_where_the_run_was_made_does_not_matter(furnished, target):
    here = facts(NAME, 0) | {"provenance": {"host": "elsewhere"}}
    Trajectory(target, NAME, 0).register(here)
    moved = copy_run(furnished, target, NAME, 0)
    assert moved.kept == [f"{RUN}/run.json"] and audit(target).findings == ()


def test_tables_of_the_targets_own_stay_and_the_record_of_others_is_left(furnished, target):
    lake.write(target, "rotation", [{"study": "own", "recipe": NAME, "seed": 0, "step": 1}], recipe=NAME, seed=0)
    own = contents(target)
    moved = copy_run(furnished, target, NAME, 0)
    assert moved.kept == list(own) and moved.left == [f"{RUN}/measured.json"]
    assert own.items() <= contents(target).items() and not target.exists(f"{RUN}/measured.json")


def test_the_same_weights_kept_in_another_way_stay(furnished, target):
    """The target's run was committed snapshot by snapshot without parents: all are whole."""
    run = Trajectory(target, NAME, 0)
    run.register(facts(NAME, 0))
    for step in STEPS:
        run.commit(step, weights(step), None)
    moved = copy_run(furnished, target, NAME, 0)
    assert len(moved.kept) == 2 * 3
    assert audit(target, deep=True).findings == ()


def test_what_is_no_part_of_the_run_is_left(furnished, target):
    left = {f"{RUN}/notes", f"{RUN}/step-00000099/master.safetensors", f"{RUN}/.run.json.{'0' * 32}"}
    left |= {f"{RUN}/resume/step-00000003/{name}" for name in ("facts.json", "state.safetensors")}
    for key in left:
        furnished.write(key, b"{}")
    assert set(copy_run(furnished, target, NAME, 0).left) == left
    assert audit(target).findings == ()


def test_a_run_that_is_not_there_is_one_line(furnished, target):
    refused(furnished, target, "holds no run tiny.opd seed 9; it has seed 0", seed=9)
    refused(furnished, target, "is no name", recipe="../tiny.opd")
    refused(furnished, furnished, "both source and target")
    furnished.remove(f"{RUN}/run.json")
    refused(furnished, target, "holds no run.json")


@pytest.mark.parametrize("name", ["../../../evil", "a\\..\\evil", "x/../evil", "a\x00b", "a\nb"])
def test_names_of_a_foreign_store_cannot_leave(furnished, target, monkeypatch, name):
    """Object stores allow such names; a listing with one is refused whole."""
    listing = Store.list_objects
    key = f"{RUN}/{name}"
    monkeypatch.setattr(Store, "list_objects", lambda store, prefix: listing(store, prefix) | {key: Listed(1, 0.0)})
    refused(furnished, target, "would leave a store")


def test_a_manifest_of_a_foreign_store_cannot_name_files_elsewhere(furnished, target):
    key = f"{RUN}/step-00000003/manifest.json"
    manifest = {k: v for k, v in json.loads(furnished.read(key)).items() if k != "sha256"}
    manifest["files"] |= {"../../../../evil": {"size": 1, "sha256": "0" * 64}}
    furnished.write(key, (json.dumps(add_checksum(manifest), indent=1, sort_keys=True) + "\n").encode())
    refused(furnished, target, "has an impossible file '../../../../evil'")


def test_a_resume_state_that_goes_while_it_is_copied_is_left(furnished, target, monkeypatch):
    place = copying._copy_object

    def placed(source, *rest):
        source.remove("runs/tiny.rlvr/seed-2/resume")
        place(source, *rest)

    monkeypatch.setattr(copying, "_copy_object", placed)
    moved = copy_run(furnished, target, "tiny.rlvr", 2)
    assert len(moved.left) == 2 and audit(target).findings == ()


def test_an_import_is_copied_with_its_record_last(memory, target):
    record = {"layout": 2, "base": {"ref": "a", "stamp": "s"}, "snapshots": {}, "tables": {"rotation": {}}}
    lake.write(memory, "rotation", [], recipe="external.x", seed=0)
    memory.write("runs/external.x/seed-0/import.json", json.dumps(record).encode())
    moved = copy_run(memory, target, "external.x", 0)
    assert moved.copied[-1] == "runs/external.x/seed-0/import.json" and contents(target) == contents(memory)
    target.write("runs/external.x/seed-0/import.json", json.dumps(record | {"base": {"ref": "b"}}).encode())
    refused(memory, target, "holds another run of that name", "base.ref", recipe="external.x")


def test_of_an_import_the_record_that_counts_is_copied_over_the_one_that_counts_there(memory, target):
    """The record is a generation of its own on either side, whose numbers need not be the same."""
    record = {"layout": 2, "base": {"ref": "a", "stamp": "s"}, "snapshots": {}, "tables": {}}
    folder = "runs/external.x/seed-0"
    memory.write(f"{folder}/import-00000001.json", b"{}")
    memory.write(f"{folder}/import-00000002.json", json.dumps(record).encode())
    moved = copy_run(memory, target, "external.x", 0)
    assert moved.copied == [f"{folder}/import-00000002.json"] and moved.left == [f"{folder}/import-00000001.json"]
    target.write(f"{folder}/import-00000005.json", b"damaged")
    assert copy_run(memory, target, "external.x", 0).copied == [f"{folder}/import-00000002.json"]
    assert target.read(f"{folder}/import-00000005.json") == json.dumps(record).encode(), "the one that counts there"
    own = json.dumps(record | {"snapshots": {"1": {}}}).encode()
    target.write(f"{folder}/import-00000005.json", own)
    assert copy_run(memory, target, "external.x", 0).kept == [f"{folder}/import-00000002.json"]
    assert target.read(f"{folder}/import-00000005.json") == own


def test_progress_ends_at_all_of_it(furnished, target):
    heard = []
    copy_run(furnished, target, NAME, 0, progress=lambda done, of: heard.append((done, of)))
    assert heard == sorted(heard) and heard[-1][0] == heard[-1][1] == sum(map(len, of_run(furnished).values()))
