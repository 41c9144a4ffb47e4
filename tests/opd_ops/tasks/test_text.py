import hashlib

import pytest

from opd_ops.tasks.text import INSTRUCTION, Text, load_tokenizer, vocabulary_digest


def test_text_goes_through_the_tokenizer_and_back_unchanged(folder):
    text = Text(folder)
    for sample in ("12 + 3", "a\n b  c", "\u00e9 = \u4e2d \u2228 \u00d7", " 's , .", ""):
        assert text.decode(text.encode(sample)) == sample


def test_a_completion_asks_and_answers_behind_the_mark(folder):
    text = Text(folder)
    assert text.decode(text.ask("1 + 1?")) == "1 + 1?\nAnswer:"
    assert text.decode(text.answer("2")) == " 2</s>"
    assert text.decode(text.ask_with_solution("1 + 1?", "2")) == "1 + 1?\nAnswer: 2\n\n1 + 1?\nAnswer:"
    assert (text.eos, text.pad) == (2, 0)


def test_a_template_asks_as_the_user_and_leaves_the_turn_to_the_model(chat_folder):
    text = Text(chat_folder, template=True)
    assert text.decode(text.ask("1 + 1?")) == f"<s>user\n1 + 1?\n\n{INSTRUCTION}</s><s>assistant\n"
    assert text.decode(text.answer("2")) == "Answer: 2</s>"
    told = text.decode(text.ask_with_solution("1 + 1?", "2"))
    assert told == f"<s>user\n1 + 1?\n\nThe solution is: 2\n\n{INSTRUCTION}</s><s>assistant\n"
    bare = Text(chat_folder, template=True, instruction="")
    assert bare.decode(bare.ask("1 + 1?")) == "<s>user\n1 + 1?</s><s>assistant\n"


def test_a_tokenizer_without_eos_is_refused_with_the_remedy(make_folder):
    mute = make_folder("mute", eos_token=None)
    with pytest.raises(
        ValueError, match=rf"{mute} has no EOS token.*eos_token in its tokenizer_config.json.*option eos"
    ):
        Text(mute)
    named = Text(mute, eos="\n")
    assert named.decode([named.eos]) == "\n"
    assert Text(mute, eos="</s>").eos == 2


def test_an_eos_of_several_tokens_is_refused(folder):
    with pytest.raises(ValueError, match="'ab' is not one token"):
        Text(folder, eos="ab")


def test_without_a_pad_token_eos_pads(make_folder):
    text = Text(make_folder("bare", pad_token=None))
    assert text.pad == text.eos == 2


def test_a_template_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match="has no chat template"):
        Text(folder, template=True)


def test_a_folder_without_a_tokenizer_ends_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has no tokenizer that transformers can read") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_vocabulary_digest_is_of_pieces_and_ids_alone(make_folder):
    one, two, other = make_folder("one"), make_folder("two", pad_token=None), make_folder("other", extra=("<x>",))
    digests = [vocabulary_digest(load_tokenizer(f)) for f in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64


def test_facts_name_the_template_only_where_it_is_used(chat_folder):
    tokenizer = load_tokenizer(chat_folder)
    used, unused = Text(chat_folder, template=True).facts(), Text(chat_folder).facts()
    assert used["template"] == hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()
    assert unused["template"] is None
    assert used["vocabulary"] == unused["vocabulary"] == vocabulary_digest(tokenizer)
