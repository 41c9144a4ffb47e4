"""A byte-level tokenizer in the files of a Hugging Face folder: any text goes through it and back unchanged."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture
def make_folder(tmp_path):
    """make_folder(name, eos_token="</s>", pad_token="<pad>", chat_template=...) -> folder."""

    def make(name="model", extra=(), chat_template=None, **names):
        names = {"eos_token": "</s>", "pad_token": "<pad>"} | names
        pieces = ["<pad>", "<s>", "</s>", *extra, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        inner = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens(["<pad>", "<s>", "</s>"])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, **{key: value for key, value in names.items() if value is not None}
        )
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def folder(make_folder):
    return make_folder()


@pytest.fixture
def chat_folder(make_folder):
    return make_folder("chat", chat_template=TEMPLATE)
