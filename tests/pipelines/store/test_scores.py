"""A cached score is the computed one, bit for bit, or it is computed again."""

import random
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from opd_ops.batch import Batch
from opd_ops.teacher.scores import Scores, Support
from pipelines.store.objects import Store
from pipelines.store.scores import CachedScorer, Packed, ScoreCache, key, pack, setting, unpack

V = 11
FULL = Support(kind="full")
SUPPORTS = [FULL, Support(kind="top", k=3), Support(kind="candidates", k=2), Support(kind="sampled")]
kinds = pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: s.kind)


class Fake:
    """A teacher whose numbers are a function of what it reads; it counts what it is asked."""

    def __init__(self, digest="teacher" * 9, vocabulary=V):
        self.digest, self.vocabulary = digest, vocabulary
        self.asked, self.announced, self.slept = 0, [], 0

    def prefetch(self, parts, support):
        self.announced += parts

    def sleep(self):
        self.slept += 1

    def score(self, part, support, candidates=None):
        self.asked += 1
        generator = torch.Generator().manual_seed(int(part.ids.sum()))
        full = torch.log_softmax(torch.randn(*part.mask.shape, V, generator=generator), -1) * part.mask.unsqueeze(-1)
        found = {"sampled": full[..., 0], "entropy": -(full.exp() * full).sum(-1)}
        if support.kind == "full":
            found["full"] = full
        if support.kind == "top":
            found["top"], found["ids"] = full.topk(support.k)
        if support.kind == "candidates":
            found["top"], found["ids"] = full.gather(-1, candidates), candidates
        return Scores(**found)


def part(seed=0, rows=3, prompt=2, width=4):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (rows, prompt + width), generator=generator)
    attention = torch.ones_like(ids)
    mask = torch.ones(rows, width)
    mask[0, 2:] = 0
    return Batch(ids=ids, attention=attention, positions=attention.cumsum(1) - 1, width=width, mask=mask)


def given_for(support, rows=3, width=4, seed=5):
    if support.kind != "candidates":
        return None
    return torch.randint(V, (rows, width, support.k), generator=torch.Generator().manual_seed(seed))


def bits(scores, mask):
    """What the scores say under the mask, as bytes; everything else is +0."""
    found = {}
    for name in ("sampled", "entropy", "full", "ids", "top"):
        value = getattr(scores, name)
        if value is not None:
            assert not value[mask == 0].numpy().view(np.uint8).any()
            found[name] = (value.dtype, tuple(value.shape), value[mask != 0].numpy().tobytes())
    return found


def computed(part, support, candidates=None):
    scores = Fake().score(part, support, candidates)
    return {
        name: (value.dtype, tuple(value.shape), value[part.mask != 0].numpy().tobytes())
        for name in ("sampled", "entropy", "full", "ids", "top")
        if (value := getattr(scores, name)) is not None
    }


@kinds
def test_a_hit_equals_computing_on_every_store(any_store, support):
    asked, candidates = part(), given_for(support)
    for hits in (0, 1):
        teacher = Fake()
        scorer = CachedScorer(teacher, ScoreCache(any_store))
        assert bits(scorer.score(asked, support, candidates), asked.mask) == computed(asked, support, candidates)
        assert (scorer.cache.hits, scorer.cache.misses, teacher.asked) == (hits, 1 - hits, 1 - hits)
    (name,) = any_store.find("scores")
    assert name == scorer.cache.key(teacher, asked, support, candidates)
    assert name.startswith(f"scores/{teacher.digest[:16]}/") and len(name.split("/")[-1]) == 64 + len(".parquet")


def same_bits(one, other):
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((one[name], other[name]) for name in one)
    )


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(
    mask=arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 1)),
    k=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=60)
def test_every_bit_of_a_number_survives(mask, k, data):
    n = int(mask.sum())
    packed = Packed(
        {
            "sampled": data.draw(arrays.arrays(np.float32, (n,), elements=FLOATS)),
            "entropy": data.draw(arrays.arrays(np.float32, (n,), elements=FLOATS)),
            "ids": data.draw(arrays.arrays(np.int64, (n, k), elements=st.integers(-(2**63), 2**63 - 1))),
            "top": data.draw(arrays.arrays(np.float32, (n, k), elements=FLOATS)),
        }
    )
    places = torch.from_numpy(mask)
    assert same_bits(pack(unpack(packed, places), places).arrays, packed.arrays)
    cache = ScoreCache(Store("memory://scores-round-trip"))
    cache.store.remove("scores")
    cache.save("scores/a/b.parquet", packed, places)
    assert same_bits(pack(cache.load("scores/a/b.parquet", places), places).arrays, packed.arrays)


def changed():
    """Everything a score depends on, each changed once."""
    base, teacher = part(), Fake()
    yield "digest", (Fake("other"), base, FULL, None, "")
    yield "vocabulary", (Fake(vocabulary=V - 1), base, FULL, None, "")
    yield "setting", (teacher, base, FULL, None, "cuda")
    yield "kind", (teacher, base, Support(kind="sampled"), None, "")
    yield "k", (teacher, base, Support(kind="top", k=2), None, "")
    yield "k + 1", (teacher, base, Support(kind="top", k=3), None, "")
    yield "temperature", (teacher, base, Support(kind="full", temperature=0.7), None, "")
    for name in ("ids", "attention", "positions"):
        other = getattr(base, name).clone()
        other[0, 0] += 1
        yield name, (teacher, replace(base, **{name: other}), FULL, None, "")
    yield "mask", (teacher, replace(base, mask=torch.ones(3, 4)), FULL, None, "")
    yield "width", (teacher, replace(base, width=3, mask=base.mask[:, :3]), FULL, None, "")
    yield "fewer rows", (teacher, base.rows(0, 2), FULL, None, "")
    yield "reshaped", (teacher, replace(base, ids=base.ids.reshape(6, 3)), FULL, None, "")
    support = Support(kind="candidates", k=2)
    yield "candidates", (teacher, base, support, given_for(support), "")
    yield "other candidates", (teacher, base, support, given_for(support, seed=6), "")


def test_whatever_a_score_depends_on_is_part_of_its_name():
    names = {"nothing": key(Fake(), part(), FULL)} | {what: key(*question) for what, question in changed()}
    assert len(set(names.values())) == len(names)


def test_what_a_score_does_not_depend_on_is_no_part_of_its_name():
    base = part()
    rewarded = replace(base, rewards=torch.ones(3), groups=torch.ones(3), behaviour=torch.ones(3, 4))
    assert key(Fake(), rewarded, FULL) == key(Fake(), base, FULL)
    flags = replace(base, mask=base.mask.to(torch.int64))
    assert key(Fake(), flags, FULL) == key(Fake(), base, FULL)


def test_the_setting_says_how_this_process_computes():
    words = setting("fp32", "cpu")
    assert torch.__version__ in words and f"{torch.get_num_threads()} threads" in words
    assert setting("bf16", "cpu") != words


def test_a_hub_names_slashes_make_no_folders(near):
    scorer = CachedScorer(Fake("org/name"), ScoreCache(near))
    scorer.score(part(), FULL)
    assert near.list("scores") == ["org-name"]
    scorer = CachedScorer(Fake(".."), ScoreCache(near))
    scorer.score(part(), FULL)
    assert near.list("scores") == ["--", "org-name"]


def test_only_what_is_missing_is_announced(near):
    teacher = Fake()
    scorer = CachedScorer(teacher, ScoreCache(near))
    parts = [part(seed) for seed in range(4)]
    scorer.score(parts[1], FULL)
    scorer.prefetch(parts, FULL)
    assert [id(each) for each in teacher.announced] == [id(parts[i]) for i in (0, 2, 3)]
    for each in parts:
        scorer.score(each, FULL)
    assert (teacher.asked, scorer.cache.hits, scorer.cache.misses) == (4, 1, 4)
    teacher.announced = []
    scorer.prefetch(parts, FULL)
    assert teacher.announced == []


def test_the_teacher_behind_the_cache_is_put_to_sleep(memory):
    scorer = CachedScorer(Fake(), ScoreCache(memory))
    scorer.sleep()
    assert scorer.scorer.slept == 1


def test_damage_is_a_miss_and_is_mended(near):
    asked = part()
    scorer = CachedScorer(Fake(), ScoreCache(near))
    expected = bits(scorer.score(asked, FULL), asked.mask)
    (name,) = near.find("scores")
    data = near.read(name)
    for count, damaged in enumerate((b"", data[:-9], data[:200], b"PAR1" * 50, data[:300] + b"?" + data[301:]), 1):
        near.write(name, damaged)
        assert bits(scorer.score(asked, FULL), asked.mask) == expected
        assert (scorer.cache.damaged, scorer.cache.misses, scorer.cache.hits) == (count, 1 + count, 0)
        assert near.read(name) == data


def test_no_changed_byte_ever_gives_a_changed_number(memory):
    asked = part(rows=1)
    cache = ScoreCache(memory)
    packed = pack(Fake().score(asked, FULL), asked.mask)
    cache.save("scores/a.parquet", packed, asked.mask)
    data = memory.read("scores/a.parquet")
    dice = random.Random(0)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        memory.write("scores/a.parquet", bytes(damaged))
        found = cache.load("scores/a.parquet", asked.mask)
        assert found is None or same_bits(pack(found, asked.mask).arrays, packed.arrays)
    assert cache.damaged > 250


def test_an_object_under_another_ones_name_is_damage(near):
    scorer = CachedScorer(Fake(), ScoreCache(near))
    one, other = part(1), part(2)
    scorer.score(one, FULL)
    near.write(scorer.cache.key(scorer, other, FULL), near.read(scorer.cache.key(scorer, one, FULL)))
    assert bits(scorer.score(other, FULL), other.mask) == computed(other, FULL)
    assert scorer.cache.damaged == 1


def test_a_racing_writers_object_is_left_alone(near, monkeypatch):
    asked = part()
    first, second = (CachedScorer(Fake(), ScoreCache(near)) for _ in range(2))
    monkeypatch.setattr(second.cache, "load", lambda key, mask: None)
    first.score(asked, FULL)
    (name,) = near.find("scores")
    before = near.version(name)
    assert bits(second.score(asked, FULL), asked.mask) == computed(asked, FULL)
    assert near.version(name) == before


def test_nothing_is_kept_of_a_step_over_the_limit(near):
    parts = [part(seed) for seed in range(3)]  # of 10 positions each
    step = 30 * (4 + 4 + 4 * V)
    scorer = CachedScorer(Fake(), ScoreCache(near), limit=step - 1)
    scorer.prefetch(parts, FULL)
    found = [bits(scorer.score(each, FULL), each.mask) for each in parts]
    assert near.find("scores") == []
    scorer = CachedScorer(Fake(), ScoreCache(near), limit=step)
    scorer.prefetch(parts, FULL)
    assert [bits(scorer.score(each, FULL), each.mask) for each in parts] == found
    assert len(near.find("scores")) == 3
    scorer = CachedScorer(Fake(), ScoreCache(near), limit=0)
    scorer.prefetch(parts, FULL)
    assert [bits(scorer.score(each, FULL), each.mask) for each in parts] == found
    assert scorer.cache.hits == 3, "what is there is read whatever the limit"


def test_a_step_of_smaller_questions_fits_where_the_whole_vocabulary_does_not(near):
    limit = 10 * (8 + 3 * 12)
    for support, kept in ((FULL, 0), (Support(kind="top", k=4), 0), (Support(kind="top", k=3), 1)):
        CachedScorer(Fake(), ScoreCache(near), limit=limit).score(part(), support)
        assert len(near.find("scores")) == kept


def test_an_empty_mask_has_scores_of_zero(near):
    asked = replace(part(), mask=torch.zeros(3, 4))
    for _ in range(2):
        scorer = CachedScorer(Fake(), ScoreCache(near))
        found = scorer.score(asked, Support(kind="top", k=3))
        assert found.top.shape == (3, 4, 3) and not found.top.any() and not found.sampled.any()
    assert scorer.cache.hits == 1


def test_an_object_is_a_table_anyone_can_read(files):
    scorer = CachedScorer(Fake(), ScoreCache(files))
    asked = part()
    found = scorer.score(asked, Support(kind="top", k=3))
    table = pq.read_table(files.path(files.find("scores")[0]))
    assert table.column_names == ["row", "position", "sampled", "entropy", "ids", "top"]
    places = list(zip(table["row"].to_pylist(), table["position"].to_pylist(), strict=True))
    assert places == [tuple(each) for each in asked.mask.nonzero().tolist()]
    assert table["top"].to_pylist() == found.top[asked.mask != 0].tolist()
    assert table["ids"].to_pylist() == found.ids[asked.mask != 0].tolist()
