"""Text made from a row of JSON: a field, a template of fields, or the result of a user's function.

question                  the field; a dot enters a nested object
{question}\\nAnswer:       a template of fields; {{ and }} are braces
./mytask.py:prompt        a function, also package.module:prompt: the row, a dict, in, and the text out
"""

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from opd_ops.outside import describe_failure, is_reference, load_object, parse_reference

Row = dict[str, Any]
ANSWER = "answer"


def is_composed(text: str) -> bool:
    """Whether a text is a template or names a function, and not a field."""
    return "{" in text or is_reference(text)


def make_composer(option: str, text: str) -> Callable[[Row], str]:
    """The function that makes a row's text, from a template or a reference to a function. option: names it in errors.

    Errors: ValueError for a template that cannot be read or a function that cannot be loaded; of what is returned, for
    a field that the row has not, or a function that raises or returns no text.
    """
    if "{" not in text:
        return _load_composer(option, text)
    try:
        parts = [(literal, field) for literal, field, _, _ in Formatter().parse(text)]
    except ValueError as error:
        raise ValueError(f"the option {option} {text!r} is no template: {error}; write {{{{ for a brace") from None
    if "" in (field for _, field in parts):
        raise ValueError(
            f"the option {option} {text!r} names no field in {{}}: write {{question}}, or {{{{ for a brace"
        )

    def compose(row: Row) -> str:
        return "".join(literal + ("" if field is None else _value(row, field, option)) for literal, field in parts)

    return compose


def look_up(row: Row, field: str) -> Any:
    """The value of a field, None where it is absent; a dot goes down a level, unless the field itself has one."""
    if field in row:
        return row[field]
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def answer_marks(template: str) -> tuple[str, str]:
    """The text before and after {answer} on its line of a template; empty where there is none."""
    before, behind, last = "", "", None
    for literal, field, _, _ in Formatter().parse(template):
        if last == ANSWER:
            behind = literal.strip("\n ").partition("\n")[0]
        if field == ANSWER:
            before = literal.rpartition("\n")[2].strip() if literal.strip() else ""
        last = field
    return before, behind.strip()


def _value(row: Row, field: str, option: str) -> str:
    value = look_up(row, field)
    if value is None:
        raise ValueError(f"has no field {field!r}, which the option {option} names; it has: {', '.join(row)}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"has a {type(value).__name__} in the field {field!r} of the option {option}, not text")
    return str(value)


def _load_composer(option: str, text: str) -> Callable[[Row], str]:
    reference = parse_reference(text, option)
    function: Any = load_object(reference)

    def compose(row: Row) -> str:
        try:
            made = function(row)
        except Exception as error:
            raise ValueError(
                f"is no example for the option {option}: {describe_failure(error, reference.source)}"
            ) from error
        if not isinstance(made, str):
            raise ValueError(
                f"is no example for the option {option}: {reference} returns {type(made).__name__}, not text"
            )
        return made

    return compose
