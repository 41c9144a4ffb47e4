from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry import bitset
from opd_ops.geometry.bitset import Bits, Packer
from tests.opd_ops.geometry.conftest import pack_bits

entries = st.lists(st.booleans(), min_size=1, max_size=300)


def bits(values):
    return pack_bits(torch.tensor(values, dtype=torch.bool))


@given(values=entries, cuts=st.lists(st.integers(0, 300), max_size=6))
def test_chunks_of_any_length_pack_to_the_same_bits(values, cuts):
    whole = torch.tensor(values, dtype=torch.bool)
    bounds = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    found = pack_bits(*(whole[a:b] for a, b in pairwise(bounds)))
    assert found.numel == len(values)
    assert torch.equal(found.to_bool(), whole)
    assert np.array_equal(found.packed, bits(values).packed)


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_counts_are_those_of_sets(pairs):
    a, b = (bits(side) for side in zip(*pairs, strict=True))
    assert a.count() == sum(x for x, _ in pairs)
    assert a.count_common(b) == b.count_common(a) == sum(x and y for x, y in pairs)
    assert a.count_common(a) == a.count()


def test_counting_blocks_cover_every_word_once(monkeypatch):
    values = torch.rand(64 * 11 + 5, generator=torch.Generator().manual_seed(0)) < 0.5
    monkeypatch.setattr(bitset, "BLOCK", 3)
    found = pack_bits(values)
    assert found.count() == found.count_common(found) == int(values.sum())


def test_words_are_whole_and_bits_past_the_end_are_zero():
    found = bits([True] * 9)
    assert found.packed.tolist() == [0xFF, 0x01, 0, 0, 0, 0, 0, 0]
    assert len(bits([True] * 64).packed) == 8
    assert len(bits([True] * 65).packed) == 16


def test_blocks_of_a_matrix_are_in_row_major_order():
    mask = torch.tensor([[True, False, False], [False, True, True]])
    assert torch.equal(pack_bits(*mask.split(1)).to_bool(), mask.flatten())


def test_a_chunk_may_be_overwritten_once_it_is_added():
    packer, buffer = Packer(), np.array([True, False, True])
    packer.add(buffer)
    buffer[:] = False
    packer.add(buffer)
    assert packer.bits().to_bool().tolist() == [True, False, True, False, False, False]


def test_sets_of_different_matrices_do_not_mix():
    with pytest.raises(ValueError, match="sets of 9 and 8 entries"):
        bits([True] * 9).count_common(bits([True] * 8))
    with pytest.raises(ValueError, match="65 bits do not fill"):
        Bits(np.zeros(8, dtype=np.uint8), 65)
