"""A tensor's code beside a base: every bit comes back, small changes are small, and what is no code is refused."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.store import codec

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor):
    return tensor.view(WHOLE[tensor.dtype.itemsize])


def again(tensor, base=None):
    code = codec.encode(tensor, base)
    assert codec.encode(tensor.clone(), base) == code
    return codec.decode(code, tensor.dtype, tuple(tensor.shape), base)


def noise(shape, dtype, seed):
    """Every bit pattern: NaNs, infinities, subnormals and both zeros among them."""
    whole = WHOLE[dtype.itemsize]
    info = torch.iinfo(whole)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(info.min, info.max, shape, dtype=whole, generator=generator).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 5), (1,), (), (0, 3), (3, 4, 5)])
@pytest.mark.parametrize("based", [True, False])
def test_every_bit_comes_back(dtype, shape, based):
    tensor, base = noise(shape, dtype, 1), noise(shape, dtype, 2) if based else None
    found = again(tensor, base)
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(bits(found), bits(tensor))


@settings(max_examples=60, deadline=None)
@given(arrays("int32", 24, elements=st.integers(-(2**31), 2**31 - 1)), arrays("int32", 24))
def test_differences_wrap_around(one, other):
    tensor, base = (torch.from_numpy(x.copy()).view(torch.float32) for x in (one, other))
    assert torch.equal(bits(again(tensor, base)), bits(tensor))


def test_a_view_is_coded_as_what_it_shows():
    whole = noise((6, 8), torch.float32, 3)
    for part in (whole.T, whole[::2], whole[:, 1:4]):
        assert torch.equal(bits(again(part, torch.zeros_like(part))), bits(part))


def test_what_hardly_moved_is_small_and_noise_is_hardly_more_than_itself():
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(512, 512, generator=generator)).bfloat16().float()
    near = base + 1e-6 * torch.randn(512, 512, generator=generator)
    assert len(codec.encode(near, base)) < 0.45 * near.nbytes
    assert len(codec.encode(near.bfloat16(), base.bfloat16())) < 0.05 * 2 * near.numel()
    assert len(codec.encode(base, base)) < 0.001 * base.nbytes
    wild = noise((512, 512), torch.float32, 5)
    assert len(codec.encode(wild, base)) <= wild.nbytes + 64


@pytest.mark.parametrize(("other", "words"), [((3, 4), r"\(3, 4\)"), ((4, 3), "bfloat16")])
def test_a_base_of_another_kind_is_refused(other, words):
    base = torch.zeros(other, dtype=torch.float32 if other == (3, 4) else torch.bfloat16)
    with pytest.raises(ValueError, match=words):
        codec.encode(torch.zeros(4, 3), base)


def damaged():
    code = codec.encode(torch.arange(12.0).reshape(3, 4))
    head = len(codec.MAGIC)
    huge = code[:head] + struct.pack("<5Q", 4, *[2**60] * 4) + code[head + 40 :]
    fewer = code[:head] + struct.pack("<Q", 3) + code[head + 8 :]
    lengths = list(struct.unpack_from("<4Q", code, head + 8))
    swapped = struct.pack("<4Q", lengths[0] - 1, lengths[1] + 1, *lengths[2:])
    return {
        "empty": b"",
        "foreign": b"PK" + code[2:],
        "cut": code[:-1],
        "longer": code + b"x",
        "huge": huge,
        "fewer planes": fewer,
        "other lengths": code[: head + 8] + swapped + code[head + 40 :],
        "garbage": code[: head + 40] + bytes(len(code) - head - 40),
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_code_is_refused_in_one_line(name):
    code = damaged()[name]
    if name == "garbage":  # zeros are planes as they are where no plane shrank
        code = codec.encode(torch.zeros(3000))
        code = code[:-8] + bytes(8)
    shape = (3000,) if name == "garbage" else (3, 4)
    with pytest.raises(ValueError, match=codec.NAME) as caught:
        codec.decode(code, torch.float32, shape)
    assert "\n" not in str(caught.value)
