"""Exports one snapshot as a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads.

    config.json              the model's configuration from run.json, with the dtype of the weights
    model.safetensors        the weights, without a tied head, as `save_pretrained` does
    tokenizer.json, ...      if the run started from weights with a tokenizer
    opd.json                 run, step, digest of the snapshot, dtype

dtype `master` exports the trained fp32 weights bit for bit. `bf16` exports the view that rollouts, evaluations and bf16
rows use. The folder appears atomically: it is written under a temporary name and renamed.
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_ops.recipe import FinalOf
from pipelines.store.checksum import REMEDY
from pipelines.store.objects import Store
from pipelines.store.tensors import read, sha256
from pipelines.store.trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("master", "bf16")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def export(store: Store, recipe: str, seed: int, step: int, folder: str, dtype: str = "master") -> list[str]:
    """Write the folder; returns the names of its files.

    Errors: ValueError in one line for a folder that is not empty, a run or step that does not exist, weights that
    differ from the committed ones, and an unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not offered; use one of {', '.join(DTYPES)}")
    place = require_free(folder)
    run = Trajectory(store, recipe, seed)
    run.require_steps(step)
    config, weights = _config_fields(run), restore_weights(run, step)
    names = {"master": {str(w.dtype).removeprefix("torch.") for w in weights.values()}, "bf16": {"bfloat16"}}[dtype]
    if len(names) != 1:
        raise ValueError(f"{run.prefix} step {step} mixes {', '.join(sorted(names))}; export it with --dtype bf16")
    (config["dtype"],) = names
    facts = {"run": run.prefix, "step": step, "digest": run.digest(step), "dtype": dtype}
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        _write(temporary / "model.safetensors", _file(weights, dtype))
        _tokenizer(store, recipe, seed, temporary)
        _write(temporary / "opd.json", (json.dumps(facts, indent=1) + "\n").encode())
        _write(temporary / "config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
        os.rename(temporary, place)  # `place` is absent or an empty folder
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}); name another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path.name for path in place.iterdir())


def require_free(folder: str) -> Path:
    """The path of a local folder that is absent or empty. Errors: ValueError in one line for anything else."""
    if not folder or ("://" in folder and not folder.startswith("file://")):
        raise ValueError(f"{folder!r} is no local folder; export there, and copy the folder where it is wanted")
    place = Path(folder.removeprefix("file://")).expanduser().absolute()
    if place.is_symlink() or (place.exists() and not place.is_dir()) or (place.is_dir() and any(place.iterdir())):
        raise ValueError(f"{folder} is there and no empty folder; name one that is absent or empty")
    return place


def restore_weights(run: Trajectory, step: int) -> "dict[str, Tensor]":
    """A snapshot's decoded weights. Errors: ValueError if their digest is not the committed one."""
    refs = run.refs(step)
    try:
        weights = read(refs)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{error}; {REMEDY}") from None
    if sha256(weights) != run.digest(step):
        raise ValueError(f"{run.snapshot(step).folder} holds other weights than were committed; see opd verify")
    return weights


def _config_fields(run: Trajectory) -> dict:
    """The fields of config.json. Includes `architectures`, which programs other than transformers need."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from opd_ops.models import configuration_from

    raw = run.run().get("model") or {}
    try:
        config = configuration_from(raw)
        architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        config.architectures = [architecture.__name__]
    except (LookupError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{run.prefix}/run.json describes no causal language model ({reason})") from None
    return json.loads(config.to_json_string(use_diff=False))


def _file(weights: "dict[str, Tensor]", dtype: str) -> bytes:
    import torch
    from safetensors.torch import save

    if dtype == "bf16":
        weights = {name: w.to(torch.bfloat16) for name, w in weights.items()}
    return save({name: weights[name].contiguous() for name in sorted(weights)}, metadata={"format": "pt"})


def _tokenizer(store: Store, recipe: str, seed: int, place: Path) -> None:
    """Copy the tokenizer's files if the run has a tokenizer and its source is available."""
    from pipelines.runs.trajectories.starts import tokenizer_folder

    try:
        folder = tokenizer_folder(store, FinalOf(recipe=recipe, seed=seed), seed)
    except (ValueError, FileNotFoundError):  # this store lacks the model that the run started from
        return
    for name in TOKENIZER if folder is not None and Path(folder).is_dir() else ():
        if (file := Path(folder or "", name)).is_file():
            _write(place / name, file.read_bytes())


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
