"""Translates pydantic's error types into messages for the author of a spec."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelstacks.core.base import PATTERN_WORDS
from modelstacks.core.errors import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Parts", "in_words", "quote"]

_LONGEST_QUOTE = 60


@dataclass(frozen=True, slots=True)
class Parts:
    """The texts of a `Fault`, without its file, line and field."""

    what: str
    got: str = ""
    allowed: str = ""
    fix: str = ""


_Context = Mapping[str, Any]
_Words = Callable[["ErrorDetails", _Context], Parts]


def _wants(kind: str) -> _Words:
    return lambda details, _: Parts(f"must be {kind}", quote(details["input"]))


def _bound(sign: str, key: str) -> _Words:
    return lambda details, context: Parts("out of range", quote(details["input"]), f"{sign} {context[key]}")


def _length(word: str, key: str, unit: str) -> _Words:
    def say(details: ErrorDetails, context: _Context) -> Parts:
        count = len(details["input"]) if hasattr(details["input"], "__len__") else 0
        return Parts(
            f"has too {'few' if word == 'at least' else 'many'} {unit}", str(count), f"{word} {context[key]}"
        )

    return say


def _pattern(details: ErrorDetails, context: _Context) -> Parts:
    pattern = context["pattern"]
    return Parts(
        "has the wrong format",
        quote(details["input"]),
        PATTERN_WORDS.get(pattern, f"text that matches {pattern}"),
    )


def _literal(details: ErrorDetails, context: _Context) -> Parts:
    allowed = _words_of(context["expected"])
    return Parts(
        "unknown value",
        quote(details["input"]),
        ", ".join(allowed),
        did_you_mean(details["input"], allowed),
    )


def _other(details: ErrorDetails, _context: _Context) -> Parts:
    return Parts("is not valid", quote(details["input"]))


# pydantic's error types -> our messages. The types that no field of a spec can raise today use `_other`.
_WORDS: dict[str, _Words] = {
    "string_type": _wants("text"),
    "string_too_short": _length("at least", "min_length", "characters"),
    "string_too_long": _length("at most", "max_length", "characters"),
    "string_pattern_mismatch": _pattern,
    "int_type": _wants("a whole number"),
    "int_from_float": _wants("a whole number"),
    "int_parsing": _wants("a whole number"),
    "int_parsing_size": _wants("a smaller whole number"),
    "float_type": _wants("a number"),
    "float_parsing": _wants("a number"),
    "finite_number": _wants("a finite number"),
    "bool_type": _wants("true or false"),
    "bool_parsing": _wants("true or false"),
    "model_type": _wants("a mapping of keys to values"),
    "model_attributes_type": _wants("a mapping of keys to values"),
    "dict_type": _wants("a mapping of keys to values"),
    "list_type": _wants("a list"),
    "tuple_type": _wants("a list"),
    "none_required": _wants("left out"),
    "greater_than": _bound("above", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("below", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "multiple_of": _bound("a multiple of", "multiple_of"),
    "too_short": _length("at least", "min_length", "items"),
    "too_long": _length("at most", "max_length", "items"),
    "literal_error": _literal,
    "enum": _literal,
}


def _hint(details: ErrorDetails) -> str:
    """Return how to write what the author probably meant."""
    given = details["input"]
    if details["type"] in ("int_type", "float_type", "bool_type") and isinstance(given, str):
        try:
            json.loads(given.lower())
        except ValueError:
            if details["type"] == "bool_type" and given.lower() in ("yes", "no", "on", "off"):
                return f"write {'true' if given.lower() in ('yes', 'on') else 'false'}"
            return ""
        return f"write {given.lower()} without quotes"
    if details["type"] == "string_type" and isinstance(given, int | float) and not isinstance(given, bool):
        return "put it in quotes"
    if details["type"] == "tuple_type" and isinstance(given, str):
        return f"write [{given}]"
    return ""


def _words_of(expected: str) -> list[str]:
    """Split pydantic's "'a', 'b' or 'c'" into words."""
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def quote(value: object) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."


def in_words(details: ErrorDetails) -> Parts:
    """Return the message for one of pydantic's errors, with a hint for common YAML mistakes."""
    parts = _WORDS.get(details["type"], _other)(details, details.get("ctx", {}))
    return parts if parts.fix else replace(parts, fix=_hint(details))
