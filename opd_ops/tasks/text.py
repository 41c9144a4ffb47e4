"""What the tasks in natural language share: a folder's tokenizer, its EOS, and the form of prompts and responses.

    completion   `{question}\\nAnswer:` -> ` {answer}` EOS
    whole        `{question}` -> ` {answer}` EOS, for a question that is the whole prompt
    template     the tokenizer's chat template around `{question}\\n{instruction}` -> `Answer: {answer}` EOS

The digests name what the tokens depend on. That the model was trained on this template is not checked.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from opd_ops.tasks.task import Tokens

Eos = str | int | Sequence[str | int] | None
MARK = "Answer:"
INSTRUCTION = f"Reason as you need, and end with a line `{MARK}` followed by the final answer only."


def load_tokenizer(folder: str) -> Any:
    """The Hugging Face tokenizer of a folder; nothing is downloaded and no code of the folder is run.

    Errors: ValueError where there is none.
    """
    from transformers import AutoTokenizer

    if not os.path.isdir(folder):
        raise ValueError(f"the tokenizer's folder {folder} does not exist: name a folder with a tokenizer.json")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the folder {folder} has no tokenizer that transformers can read: {reason}") from error


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 over the sorted (piece, id) pairs: two models can share token ids only where it is equal."""
    text = json.dumps(sorted(tokenizer.get_vocab().items()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Text:
    """The tokenizer of a folder with one way to ask and one way to answer.

    eos: the piece or id that ends a response, where it is not the tokenizer's own; of several, the first ends
    demonstrations and any of them ends a sampled response. template: ask through the chat template. instruction: what
    a templated question ends with; "" for questions that carry their own. whole: questions are whole prompts. Errors:
    ValueError for a tokenizer without EOS, an EOS that is not one token or no id, an empty list of them, or a
    template that is not there.
    """

    def __init__(
        self,
        folder: str,
        eos: Eos = None,
        template: bool = False,
        instruction: str = INSTRUCTION,
        whole: bool = False,
    ) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.template, self.instruction, self.whole = template, instruction, whole
        if template and not self.tokenizer.chat_template:
            raise ValueError(f"the tokenizer of {folder} has no chat template: leave the option template out")
        self.eos, *others = [self._end(folder, piece) for piece in _list_eos(eos)]
        self.stops: tuple[int, ...] = tuple(others)
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.eos if pad is None else pad

    def encode(self, text: str) -> Tokens:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: Tokens) -> str:
        """The text as it stands: special tokens are kept, and so spoil an answer they are part of."""
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def ask(self, question: str) -> Tokens:
        """The prompt of a question."""
        if self.template:
            return self._chat(_paragraphs(question, self.instruction))
        return self.tokenizer.encode(self._complete_question(question))

    def ask_with_solution(self, question: str, solution: str, response: str | None = None) -> Tokens:
        """The prompt of a privileged teacher: the solution, or the response, and then the question."""
        if self.template:
            return self._chat(_paragraphs(question, f"The solution is: {solution}", self.instruction))
        question_text = self._complete_question(question)
        return self.tokenizer.encode(
            f"{question_text}{f' {solution}' if response is None else response}\n\n{question_text}"
        )

    def answer(self, solution: str, *, marked: bool = False, response: str | None = None) -> Tokens:
        """The response that states a solution, with EOS. marked: the solution already marks its final answer.

        response: its whole text, where that is another.
        """
        if response is not None:
            return [*self.encode(response), self.eos]
        if not self.template:
            return [*self.encode(f" {solution}"), self.eos]
        return [*self.encode(solution if marked else f"{MARK} {solution}"), self.eos]

    def facts(self) -> dict[str, Any]:
        """What the tokens depend on: digests of the vocabulary and of the chat template in use, and the EOS."""
        template = self.tokenizer.chat_template if self.template else None
        if isinstance(template, dict):
            template = json.dumps(template, sort_keys=True)
        return {
            "vocabulary": vocabulary_digest(self.tokenizer),
            "template": template and hashlib.sha256(template.encode()).hexdigest(),
            "eos": self.eos,
        } | ({"stops": list(self.stops)} if self.stops else {})

    def _end(self, folder: str, piece: str | int | None) -> int:
        if isinstance(piece, int):
            if not 0 <= piece < len(self.tokenizer):
                raise ValueError(f"eos {piece} is no id of the tokenizer of {folder}, which has {len(self.tokenizer)}")
            return piece
        if piece is not None:
            tokens = self.encode(piece)
            if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_token_id:
                raise ValueError(f"{piece!r} is not one token of the tokenizer of {folder}: name another eos")
            return tokens[0]
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {folder} has no EOS token, so no response would end: "
                "set eos_token in its tokenizer_config.json, or name a piece with the task's option eos"
            )
        return self.tokenizer.eos_token_id

    def _complete_question(self, question: str) -> str:
        return question if self.whole else f"{question}\n{MARK}"

    def _chat(self, content: str) -> Tokens:
        messages = [{"role": "user", "content": content}]
        tokens = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        return list(tokens["input_ids"]) if isinstance(tokens, Mapping) else list(tokens)


def _list_eos(eos: Eos) -> Sequence[str | int | None]:
    """Errors: ValueError for an empty list."""
    if isinstance(eos, str | int) or eos is None:
        return [eos]
    if not eos:
        raise ValueError("the option eos lists no token: name one, or leave it out for the tokenizer's own")
    return eos


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
