"""What somebody brings: a tiny Llama with a tokenizer of its own, and a file of questions."""

import json
from pathlib import Path

from opd_ops.models import assemble, configuration, initialise
from opd_ops.recipe import Architecture

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"0123456789", "+", "=", "what", "is", "?", "Answer:", "\n"]


def make_model(folder: Path, seed: int = 0, **sizes: int) -> Path:
    """A Hugging Face folder: a Llama of one layer and random weights, words as tokens."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()  # stderr is what tests of commands read
    inner = Tokenizer(models.WordLevel(vocab={word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" +"), "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.save_pretrained(folder)
    architecture = Architecture(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        family="llama",
        **sizes,
    )
    config = configuration(architecture, pad=0, bos=1, eos=2)
    assemble(config, initialise(config, seed), torch.float32).save_pretrained(folder)
    return folder


def make_data(file: Path, count: int = 60) -> Path:
    """`count` sums of digits, one JSON object a line."""
    pairs = [(a, b) for a in range(10) for b in range(10)][:count]
    rows = [{"question": f"what is {a} + {b} ?", "answer": str((a + b) % 10)} for a, b in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
