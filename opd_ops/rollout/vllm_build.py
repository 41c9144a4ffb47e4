"""What belongs to one build of vLLM, or is no part of its interface: imports, its environment, options, start and end.

Written for vLLM 0.32, of which the CPU build was run. Of what follows, a later release may change every line.
"""

import gc
import importlib
import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

ENVIRONMENT = {  # unless the caller's says otherwise
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are the caller's choice
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def installed_version() -> str:
    """The version that is installed, as the GPU or the CPU build; "" when neither is."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def import_vllm(part: str = "") -> Any:
    """vLLM, or a module of it, when it is first needed: its import takes seconds."""
    return importlib.import_module(f"vllm.{part}" if part else "vllm")


def set_environment() -> None:
    """Before vLLM is imported."""
    os.environ.update(ENVIRONMENT | os.environ)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # tensors and functions reach the model without pickling


def cpu_options(config: PretrainedConfig, cache_gib: float) -> dict[str, Any]:
    """Options of an engine on a CPU. Errors: ValueError for heads of a width that its kernels do not serve."""
    kernels = import_vllm("v1.attention.backends.cpu_attn").CPUAttentionBackend
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width not in (known := kernels.get_supported_head_sizes()):
        raise ValueError(f"vLLM on a CPU serves heads of {', '.join(map(str, known))} channels, not {width}")
    return {"enforce_eager": True, "kv_cache_memory_bytes": int(cache_gib * 2**30)}


def gpu_options(share: float) -> dict[str, Any]:
    return {"enable_sleep_mode": True, "gpu_memory_utilization": share}


def stop_engine(core: Any) -> None:
    """Stop an engine's core and free what it holds."""
    core.shutdown()
    # A global table of reloads would keep every layer alive; the rest is freed once its cycles are collected.
    import_vllm("model_executor.model_loader.reload.layerwise").LAYERWISE_INFO.clear()
    gc.collect()


def pack_head(model: nn.Module) -> None:
    """Pack the output head for the CPU kernels from the weights that it has now."""
    import_vllm("model_executor.layers.utils").dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


@contextmanager
def keep_torch_settings() -> Iterator[None]:
    """vLLM reseeds torch's generator when it starts, and on a CPU takes the choice of threads away: both are undone."""
    setter, threads = torch.set_num_threads, torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_num_threads = setter
            torch.set_num_threads(threads)
