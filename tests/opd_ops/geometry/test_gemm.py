import pytest
import torch

from opd_ops.geometry import gemm


def test_plain_f32_passes_with_its_error_and_speed():
    found = gemm.probe_path("highest")
    assert found.path == "highest"
    assert 0.0 < found.error < gemm.LIMIT
    assert found.noise == 4 * found.error
    assert found.gflops > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_fake_fast_path_is_rejected_by_name(dtype):
    # What a host does that multiplies "f32" in reduced precision and accumulates in f32.
    fake = lambda a, b: a.to(dtype).float() @ b.to(dtype).float()
    with pytest.raises(gemm.ReducedPrecision, match=r"relative error of .*e-0[34] \(path 'medium'\)"):
        gemm.probe_path("medium", product=fake)


def test_tf32_like_truncation_is_rejected():
    keep = lambda a: (a.view(torch.int32) & ~0x1FFF).view(torch.float32)  # 10 bits of significand
    with pytest.raises(gemm.ReducedPrecision):
        gemm.probe_path("high", product=lambda a, b: keep(a) @ keep(b))


def test_a_product_of_nan_is_rejected():
    with pytest.raises(gemm.ReducedPrecision):
        gemm.probe_path(product=lambda a, b: a @ b * float("nan"))


def test_the_choice_is_accurate_and_kept(monkeypatch):
    gemm.choose_path.cache_clear()
    gemm.check_path.cache_clear()
    chosen = gemm.choose_path()
    assert chosen.error < gemm.LIMIT
    assert chosen.path in gemm.PATHS and gemm.choose_path() is chosen


@pytest.mark.parametrize("path", gemm.PATHS)
def test_a_path_is_left_after_the_block_and_after_a_probe_whatever_happens_there(path):
    before = torch.get_float32_matmul_precision()
    with gemm.use_path(path):
        assert torch.get_float32_matmul_precision() == path
    with pytest.raises(ZeroDivisionError), gemm.use_path(path):
        raise ZeroDivisionError
    with pytest.raises(gemm.ReducedPrecision):
        gemm.probe_path(path, product=lambda a, b: 2 * (a @ b))
    gemm.probe_path("highest")
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_an_inaccurate_fast_path_is_never_chosen(monkeypatch):
    gemm.choose_path.cache_clear()
    gemm.check_path.cache_clear()
    plain = gemm.Probe("highest", 3e-7, 50.0)

    def probe(path, device="cpu"):
        if path == "highest":
            return plain
        if path == "high":
            raise gemm.ReducedPrecision("bf16 in disguise")
        return gemm.Probe(path, 4e-7, 200.0)

    monkeypatch.setattr(gemm, "probe_path", probe)
    assert gemm.choose_path().path == "medium"
    gemm.choose_path.cache_clear()
    gemm.check_path.cache_clear()
    monkeypatch.setattr(
        gemm, "probe_path", lambda path, device="cpu": gemm.Probe(path, 3e-7, 50.0 if path == "highest" else 99.0)
    )
    gemm.choose_path.cache_clear()
    gemm.check_path.cache_clear()
    assert gemm.choose_path().path == "highest"  # one kernel under three names
    monkeypatch.setattr(gemm, "probe_path", probe)
    monkeypatch.setattr(gemm, "FASTER", 10.0)
    assert gemm.choose_path() == plain
    gemm.choose_path.cache_clear()
    gemm.check_path.cache_clear()
