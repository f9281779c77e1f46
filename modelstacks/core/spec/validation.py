"""From a YAML file to a Spec, or to every fault in it at once.

pydantic finds the faults; every sentence about them is made here, in the words of a spec's author, with the
line.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeIs

from modelstacks.core.base import PATTERN_WORDS
from modelstacks.core.errors import Fault, Invalid, SpecInvalid, did_you_mean
from modelstacks.core.plan.features import refusals
from modelstacks.core.registry import default_target, spec_type, targets
from modelstacks.core.spec import Spec
from modelstacks.core.spec.documents import Document, Location, load_document

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["CheckedSpec", "check_specs", "json_schema", "read_spec", "read_specs"]

_LONGEST_QUOTE = 60
# Keys of earlier versions -> today's, each from the top of the spec. Another target may have no such key.
_MOVED = {
    "model.allow_pickle": "model.trust_code",
    "scaling.cpu_percent": "self-hosted.cpu_percent",
    "self-hosted.architecture": "self-hosted.processor",
}


@dataclass(frozen=True, slots=True)
class CheckedSpec:
    """A valid spec and the document that it was read from."""

    spec: Spec
    document: Document

    def fault(self, field: str, what: str, *, fix: str = "") -> Fault:
        """A fault that was found later, on the line of a dotted field."""
        return Fault(self.document.file, self.document.line(tuple(field.split("."))), field, what, fix=fix)


def read_spec(path: Path) -> Spec:
    """Read one spec.

    Raises:
        SpecInvalid: with every fault in the file.
    """
    return check_specs([path])[0].spec


def read_specs(paths: Iterable[Path]) -> list[Spec]:
    """Read several specs.

    Raises:
        SpecInvalid: with every fault in every file, a name that two of them share included.
    """
    return [checked.spec for checked in check_specs(paths)]


def check_specs(paths: Iterable[Path]) -> list[CheckedSpec]:
    """Read several specs and keep where each value stands. Raises SpecInvalid as `read_specs`."""
    faults: list[Fault] = []
    found: list[CheckedSpec] = []
    for path in paths:
        try:
            found.append(_check(path))
        except SpecInvalid as error:
            faults += error.faults
    first: dict[str, CheckedSpec] = {}
    for checked in found:
        other = first.setdefault(checked.spec.name, checked)
        if other is not checked:
            faults.append(
                Fault(
                    checked.document.file,
                    checked.document.line(("name",)),
                    "name",
                    f"is taken by {other.document.file}:{other.document.line(('name',))}",
                    got=_quote(checked.spec.name),
                    fix="names decide the stacks' names: give each spec its own",
                )
            )
    if faults:
        raise SpecInvalid(faults)
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a spec, for editors: docs/schema/spec.schema.json."""
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        """Leaves out the titles that pydantic makes of keys: they say nothing more."""

        def field_title_should_be_set(self, _: Any) -> bool:
            return False

    schema = spec_type().model_json_schema(by_alias=True, schema_generator=Untitled)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check(path: Path) -> CheckedSpec:
    document = load_document(path)
    try:
        spec = spec_type().model_validate(document.data)
    except ValidationError as error:
        raise SpecInvalid(_fault(document, details) for details in error.errors(include_url=False)) from None
    checked = CheckedSpec(spec, document)
    refused = [checked.fault(field, reason) for field, reason in refusals(spec, spec.architecture)]
    if refused:
        raise SpecInvalid(refused)
    return checked


def _fault(document: Document, details: ErrorDetails) -> Fault:
    location, block = _resolve(details["loc"])
    if details["type"] == "value_error":
        raised = details.get("ctx", {}).get("error")
        said = raised if isinstance(raised, Invalid) else Invalid(str(raised))
        location = (*location, said.field) if said.field else location
        parts = _Parts(said.what, said.got, said.allowed, said.fix)
    elif details["type"].startswith("union_tag"):
        location, parts = _tag_fault(location, block, details)
    elif details["type"] == "missing":
        parts = _Parts("is missing", fix=_purpose(str(location[-1]), block))
    elif details["type"] == "extra_forbidden":
        parts = _unknown_key(location, block, document)
    else:
        words = _WORDS.get(details["type"], _other)
        parts = words(details, details.get("ctx", {}))
        if not parts.fix:
            parts = _Parts(parts.what, parts.got, parts.allowed, _mend(details))
    field = ".".join(map(str, location))
    return Fault(
        document.file, document.line(location), field, parts.what, parts.got, parts.allowed, parts.fix
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    what: str
    got: str = ""
    allowed: str = ""
    fix: str = ""


_Context = Mapping[str, Any]
_Words = Callable[["ErrorDetails", _Context], _Parts]


def _wants(kind: str) -> _Words:
    return lambda details, _: _Parts(f"must be {kind}", _quote(details["input"]))


def _bound(sign: str, key: str) -> _Words:
    return lambda details, context: _Parts("out of range", _quote(details["input"]), f"{sign} {context[key]}")


def _length(word: str, key: str, unit: str) -> _Words:
    def say(details: ErrorDetails, context: _Context) -> _Parts:
        count = len(details["input"]) if hasattr(details["input"], "__len__") else 0
        return _Parts(
            f"has too {'few' if word == 'at least' else 'many'} {unit}", str(count), f"{word} {context[key]}"
        )

    return say


def _pattern(details: ErrorDetails, context: _Context) -> _Parts:
    pattern = context["pattern"]
    return _Parts(
        "does not fit", _quote(details["input"]), PATTERN_WORDS.get(pattern, f"text that matches {pattern}")
    )


def _literal(details: ErrorDetails, context: _Context) -> _Parts:
    allowed = _words_of(context["expected"])
    return _Parts(
        "unknown value",
        _quote(details["input"]),
        ", ".join(allowed),
        did_you_mean(details["input"], allowed),
    )


def _other(details: ErrorDetails, _context: _Context) -> _Parts:
    return _Parts("is not valid", _quote(details["input"]))


# pydantic's error types -> our words. Those that no field of a spec can raise today have `_other`.
_WORDS: dict[str, _Words] = {
    "string_type": _wants("text"),
    "string_too_short": _length("at least", "min_length", "characters"),
    "string_too_long": _length("at most", "max_length", "characters"),
    "string_pattern_mismatch": _pattern,
    "int_type": _wants("a whole number"),
    "int_from_float": _wants("a whole number"),
    "int_parsing": _wants("a whole number"),
    "int_parsing_size": _wants("a whole number of a sensible size"),
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


def _tag_fault(
    location: Location, block: type[BaseModel] | None, details: ErrorDetails
) -> tuple[Location, _Parts]:
    """No variant of a block could be chosen: its `source` or `target` is missing or unknown."""
    field = next(f for n, f in block.model_fields.items() if location[-1] in (f.alias, n)) if block else None
    allowed = [tag for member in _members(field.annotation) for tag in sorted(_tags(member))] if field else []
    key = "source" if location == ("model",) else "target"
    given = details["input"]
    if not isinstance(given, dict):
        return location, _Parts("must be a mapping of keys to values", _quote(given))
    if key not in given:
        return (*location, key), _Parts("is missing", fix=f"add {key}: " + " or ".join(allowed))
    word = given[key]
    parts = _Parts("unknown value", _quote(word), ", ".join(allowed), did_you_mean(word, allowed))
    return (*location, key), parts


def _purpose(key: str, block: type[BaseModel] | None) -> str:
    """What to write for a key that is missing."""
    field = next((f for n, f in block.model_fields.items() if key in (f.alias, n)), None) if block else None
    if field is None:
        return f"add {key}"
    if get_origin(field.annotation) is Literal:
        return f"add {key}: " + " or ".join(map(str, get_args(field.annotation)))
    return f"add {key}" + (f" ({field.description})" if field.description else "")


def _unknown_key(location: Location, block: type[BaseModel] | None, document: Document) -> _Parts:
    if block is None:
        return _Parts("unknown key")
    allowed, key = _keys(block), str(location[-1])
    fix = _moved(location, document) or _of_other_targets(location)
    fix = fix or did_you_mean(key, allowed) or _elsewhere(key, document)
    return _Parts("unknown key", allowed=", ".join(allowed), fix=fix)


def _moved(location: Location, document: Document) -> str:
    """What became of a key that an earlier version had here."""
    new = _MOVED.get(".".join(map(str, location)))
    if new is None:
        return ""
    parent, _, key = new.rpartition(".")
    block = _block(parent, document)
    if block is None or key not in _keys(block):
        return ""
    return f"it was renamed to {key}" if parent == str(location[0]) else f"it was moved to {new}"


def _of_other_targets(location: Location) -> str:
    """Which of an architecture's targets have a key that the chosen one lacks."""
    architecture, key = location[0], str(location[-1])
    if len(location) != 2 or architecture not in ("self-hosted", "managed"):
        return ""
    names = [target.name for target in targets(architecture).values() if key in _keys(target.spec)]
    return f"set target: {' or '.join(names)}, which has it" if names else ""


def _block(name: str, document: Document) -> type[BaseModel] | None:
    """A block of the spec, as the target or source that the user wrote declares it."""
    written = document.data.get(name)
    given = written if isinstance(written, dict) else {}
    if name in ("self-hosted", "managed") and "target" not in given:
        return default_target(name).spec
    fields = spec_type().model_fields.items()
    annotation = next(field.annotation for key, field in fields if name in (field.alias, key))
    return _variant(annotation, given)


def _elsewhere(key: str, document: Document) -> str:
    """Where a key of another block belongs, when exactly one block has it."""
    spec = spec_type()
    homes = []
    for parent in _keys(spec):
        block = _block(parent, document)
        if block is not None and key in _keys(block):
            homes.append(parent)
    if key in _keys(spec):
        homes.append("")
    if len(homes) != 1:
        return ""
    return f"move it under {homes[0]}" if homes[0] else "move it to the top level"


def _mend(details: ErrorDetails) -> str:
    """A hint for the slips that YAML invites."""
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


def _resolve(raw: Sequence[int | str]) -> tuple[Location, type[BaseModel] | None]:
    """pydantic's location without union tags, as the user writes it, and the block that it lies in."""
    location: list[int | str] = []
    annotation: Any = spec_type()
    block: type[BaseModel] | None = None
    for part in raw:
        members = _members(annotation)
        tagged = next((m for m in members if part in _tags(m)), None) if len(members) > 1 else None
        if tagged is not None:
            annotation = tagged
            continue
        location.append(part)
        model = next((member for member in members if _is_model(member)), None)
        if model is not None:
            block = model
            field = next((f for n, f in model.model_fields.items() if part in (f.alias, n)), None)
            annotation = field.annotation if field else None
        else:
            block = None
            annotation = next(iter(get_args(members[0])), None) if members else None
    return tuple(location), block


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, None aside: one, or a union's."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [member for inner in get_args(annotation) for member in _members(inner)]
    if hasattr(annotation, "__metadata__"):  # Annotated[X, ...]
        return _members(annotation.__origin__)
    return [] if annotation in (None, type(None)) else [annotation]


def _variant(annotation: Any, given: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model of a block: the only one, or the one whose `source` or `target` the user wrote."""
    models = [member for member in _members(annotation) if _is_model(member)]
    for model in models:
        if any(given.get(key) == tag for key in ("source", "target") for tag in _tags(model)):
            return model
    return models[0] if len(models) == 1 else None


def _tags(annotation: Any) -> set[Any]:
    if not _is_model(annotation):
        return set()
    fields = (annotation.model_fields.get(key) for key in ("source", "target"))
    return {
        tag for field in fields if field is not None and get_origin(field.annotation) is Literal
        for tag in get_args(field.annotation)
    }  # fmt: skip


def _is_model(annotation: Any) -> TypeIs[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(block: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in block.model_fields.items()]


def _words_of(expected: str) -> list[str]:
    """pydantic's "'a', 'b' or 'c'" as the words themselves."""
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def _quote(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."
