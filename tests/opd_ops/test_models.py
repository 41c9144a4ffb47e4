import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers.utils import logging

from opd_ops.models import assemble, configuration, configuration_from, initialise, load_folder, state

NORM = "model.norm.weight"


def test_weights_depend_on_the_seed_alone(weights):
    torch.manual_seed(1)
    _, one = weights(7)
    torch.manual_seed(2)
    _, same = weights(7)
    _, other = weights(8)
    assert one.keys() == same.keys() and all(torch.equal(w, same[name]) for name, w in one.items())
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    assert {w.dtype for w in one.values()} == {torch.float32}


def test_building_models_leaves_the_global_generator_alone(weights):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    config, tensors = weights(7)
    assemble(config, tensors, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_initial_spread_is_the_architectures(weights):
    config, tensors = weights(0)
    drawn = torch.cat([w.flatten() for name, w in tensors.items() if name.endswith("_proj.weight")])
    assert float(drawn.std()) == pytest.approx(config.initializer_range, rel=0.05)
    assert torch.equal(tensors[NORM], torch.ones(32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_models_parameters_are_the_weights_rounded_to_bf16(dtype, weights):
    config, tensors = weights(0)
    model = assemble(config, tensors, dtype)
    assert not model.training
    for name, p in model.named_parameters():
        assert p.dtype == dtype
        assert torch.equal(p.float(), tensors[name].bfloat16().float())


def test_both_dtypes_serve_the_same_weights(weights):
    config, tensors = weights(0)
    ids = torch.tensor([[1, 3, 4, 5]])
    wide, narrow = (assemble(config, tensors, dtype)(ids).logits.float() for dtype in (torch.float32, torch.bfloat16))
    assert torch.allclose(wide, narrow, rtol=0, atol=0.1) and not torch.equal(wide, narrow)


def test_the_head_is_the_embedding(weights):
    config, tensors = weights(0)
    assert "lm_head.weight" not in tensors
    model = assemble(config, tensors, torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    hidden = model.model(torch.tensor([[1, 3, 4]])).last_hidden_state
    logits = model(torch.tensor([[1, 3, 4]])).logits
    assert torch.allclose(logits, hidden @ tensors["model.embed_tokens.weight"].bfloat16().float().T, atol=1e-5)


def test_a_state_is_a_copy_in_fp32(weights):
    config, tensors = weights(0)
    model = assemble(config, tensors, torch.bfloat16)
    found = state(model)
    assert {w.dtype for w in found.values()} == {torch.float32}
    kept = {name: w.clone() for name, w in found.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert all(torch.equal(w, kept[name]) and not w.requires_grad for name, w in found.items())


def test_missing_and_unknown_tensors_are_named(weights):
    config, tensors = weights(0)
    less = {name: w for name, w in tensors.items() if "norm" not in name}
    with pytest.raises(ValueError, match=r"lack tensor model\.layers\.0\.input_layernorm\.weight \(5 missing\)"):
        assemble(config, less, torch.float32)
    with pytest.raises(ValueError, match=r"unknown tensor lm_head\.weight \(1 unknown\)"):
        assemble(config, tensors | {"lm_head.weight": torch.zeros(8, 32)}, torch.float32)


@pytest.mark.parametrize("shape", [(1,), (7,), (32, 1)])
def test_a_tensor_of_another_shape_is_named_and_never_broadcast(shape, weights):
    config, tensors = weights(0)
    message = rf"^tensor model\.norm\.weight has shape \({shape[0]},.*\), and the model \(32,\)"
    with pytest.raises(ValueError, match=message):
        assemble(config, tensors | {NORM: torch.ones(shape)}, torch.float32)


def test_a_configuration_survives_json(weights):
    config, tensors = weights(0)
    again = configuration_from(json.loads(config.to_json_string(use_diff=False)))
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 1, 2)
    ids = torch.tensor([[1, 3, 4, 5]])
    found = [assemble(c, tensors, torch.float32)(ids).logits for c in (config, again)]
    assert torch.equal(*found)


def test_a_configuration_has_the_architectures_sizes_and_no_dropout(recipe):
    from opd_ops.recipe import Sft

    architecture = recipe(Sft(stream="any")).start.architecture
    config = configuration(architecture, pad=4, bos=5, eos=6)
    sizes = {name: value for name, value in vars(architecture).items() if name != "family"}
    assert config.model_type == "qwen3" and all(getattr(config, name) == value for name, value in sizes.items())
    assert (config.tie_word_embeddings, config.attention_dropout) == (True, 0.0)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (4, 5, 6)
    numel = sum(w.numel() for w in initialise(config, 0).values())
    assert numel == 8 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48 + 3 * 32 + 2 * 16


def test_a_llama_is_the_same_decoder_without_norms_of_queries_and_keys(recipe):
    from dataclasses import replace

    from opd_ops.recipe import Sft

    architecture = recipe(Sft(stream="any")).start.architecture
    llama = configuration(replace(architecture, family="llama"), pad=4, bos=5, eos=6)
    ours, theirs = (initialise(config, 0) for config in (configuration(architecture, pad=4, bos=5, eos=6), llama))
    assert llama.model_type == "llama" and llama.attention_dropout == 0.0
    assert {name for name in ours if "q_norm" in name or "k_norm" in name} == ours.keys() - theirs.keys() != set()
    assert {name: w.shape for name, w in theirs.items()} == {name: ours[name].shape for name in theirs}


@pytest.fixture
def folder(weights, tmp_path):
    """folder(**tensors): a Hugging Face folder in which these tensors replace the model's own; None drops one."""
    config, tensors = weights(0)

    def make(**changes):
        path = tmp_path / "model"
        assemble(config, tensors, torch.float32).save_pretrained(path)
        changed = {name: w for name, w in (tensors | changes).items() if w is not None}
        save_file(changed, path / "model.safetensors", metadata={"format": "pt"})
        return path

    return make


def test_a_folder_is_loaded_in_fp32_unrounded(folder, weights):
    config, tensors = load_folder(str(folder()))
    assert config.hidden_size == 32
    expected = weights(0)[1]
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(w, expected[name]) for name, w in tensors.items())


def test_a_folder_is_loaded_without_a_word_and_the_callers_bars_stay(folder, capfd):
    path = folder()
    capfd.readouterr()
    for enabled in (True, False):
        (logging.enable_progress_bar if enabled else logging.disable_progress_bar)()
        load_folder(str(path))
        assert logging.is_progress_bar_enabled() == enabled
    assert capfd.readouterr() == ("", "")
    logging.enable_progress_bar()


def test_an_absent_tensor_is_named_and_not_left_random(folder):
    path = folder(**{NORM: None})
    with pytest.raises(ValueError, match=rf"^{path} lacks tensor model\.norm\.weight \(1 missing\)$"):
        load_folder(str(path))


def test_what_cannot_be_loaded_is_one_line_that_names_the_folder(folder, tmp_path):
    def broken(change):
        path = folder()
        change(path)
        return path

    weights, config = "model.safetensors", "config.json"
    for path in (
        tmp_path / "none",
        folder(**{NORM: torch.ones(7)}),
        broken(lambda path: (path / weights).write_bytes((path / weights).read_bytes()[:-50])),
        broken(lambda path: (path / weights).write_bytes(b"not safetensors")),
        broken(lambda path: (path / weights).unlink()),
        broken(lambda path: (path / config).write_text("{")),
        broken(lambda path: (path / config).write_text("{}")),
        broken(lambda path: (path / config).write_text('{"model_type": "nonesuch"}')),
        broken(lambda path: (path / config).unlink()),
    ):
        with pytest.raises(ValueError, match=rf"^no model could be loaded from {path}: .+") as caught:
            load_folder(str(path))
        assert "\n" not in str(caught.value)
        shutil.rmtree(path, ignore_errors=True)


def test_pickled_weights_are_never_read(folder, weights):
    path = folder()
    (path / "model.safetensors").unlink()
    torch.save(weights(0)[1], path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no model could be loaded from"):
        load_folder(str(path))
