"""Reads YAML files into Specs, or reports every fault in them at once.

pydantic finds the faults; words.py has the messages about values. This module adds the line to each fault,
and the fix for a key that is missing, unknown or in the wrong place.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeIs

from modelstacks.core.errors import Fault, Invalid, SpecInvalid, did_you_mean
from modelstacks.core.plan.features import refusals
from modelstacks.core.registry import default_target, spec_type, targets
from modelstacks.core.spec import Spec
from modelstacks.core.spec.documents import Document, Location, load_document
from modelstacks.core.spec.words import Parts, in_words, quote

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["CheckedSpec", "check_specs", "json_schema", "read_spec", "read_specs"]

# Keys of earlier versions -> current keys, as full paths. A target may not have the current key.
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
        """Return a fault on the line of a dotted field, for a check that runs after parsing."""
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
    """Read several specs with the line of each value. Raises SpecInvalid as `read_specs`."""
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
                    got=quote(checked.spec.name),
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
        parts = Parts(said.what, said.got, said.allowed, said.fix)
    elif details["type"].startswith("union_tag"):
        location, parts = _tag_fault(location, block, details)
    elif details["type"] == "missing":
        parts = Parts("is missing", fix=_purpose(str(location[-1]), block))
    elif details["type"] == "extra_forbidden":
        parts = _unknown_key(location, block, document)
    else:
        parts = in_words(details)
    field = ".".join(map(str, location))
    return Fault(
        document.file, document.line(location), field, parts.what, parts.got, parts.allowed, parts.fix
    )


def _tag_fault(
    location: Location, block: type[BaseModel] | None, details: ErrorDetails
) -> tuple[Location, Parts]:
    """Describe a block whose variant is unknown: its `source` or `target` is missing or not a known one."""
    field = next(f for n, f in block.model_fields.items() if location[-1] in (f.alias, n)) if block else None
    allowed = [tag for member in _members(field.annotation) for tag in sorted(_tags(member))] if field else []
    key = "source" if location == ("model",) else "target"
    given = details["input"]
    if not isinstance(given, dict):
        return location, Parts("must be a mapping of keys to values", quote(given))
    if key not in given:
        return (*location, key), Parts("is missing", fix=f"add {key}: " + " or ".join(allowed))
    word = given[key]
    parts = Parts("unknown value", quote(word), ", ".join(allowed), did_you_mean(word, allowed))
    return (*location, key), parts


def _purpose(key: str, block: type[BaseModel] | None) -> str:
    """Return what to write for a missing key."""
    field = next((f for n, f in block.model_fields.items() if key in (f.alias, n)), None) if block else None
    if field is None:
        return f"add {key}"
    if get_origin(field.annotation) is Literal:
        return f"add {key}: " + " or ".join(map(str, get_args(field.annotation)))
    return f"add {key}" + (f" ({field.description})" if field.description else "")


def _unknown_key(location: Location, block: type[BaseModel] | None, document: Document) -> Parts:
    if block is None:
        return Parts("unknown key")
    allowed, key = _keys(block), str(location[-1])
    fix = _moved(location, document) or _of_other_targets(location)
    fix = fix or did_you_mean(key, allowed) or _elsewhere(key, document)
    return Parts("unknown key", allowed=", ".join(allowed), fix=fix)


def _moved(location: Location, document: Document) -> str:
    """Return the current place of a key that an earlier version had here."""
    new = _MOVED.get(".".join(map(str, location)))
    if new is None:
        return ""
    parent, _, key = new.rpartition(".")
    block = _block(parent, document)
    if block is None or key not in _keys(block):
        return ""
    return f"it was renamed to {key}" if parent == str(location[0]) else f"it was moved to {new}"


def _of_other_targets(location: Location) -> str:
    """Return which targets of the architecture have a key that the selected one lacks."""
    architecture, key = location[0], str(location[-1])
    if len(location) != 2 or architecture not in ("self-hosted", "managed"):
        return ""
    names = [target.name for target in targets(architecture).values() if key in _keys(target.spec)]
    return f"set target: {' or '.join(names)}, which has this key" if names else ""


def _block(name: str, document: Document) -> type[BaseModel] | None:
    """Return the model of a block, for the target or source that the user wrote."""
    written = document.data.get(name)
    given = written if isinstance(written, dict) else {}
    if name in ("self-hosted", "managed") and "target" not in given:
        return default_target(name).spec
    fields = spec_type().model_fields.items()
    annotation = next(field.annotation for key, field in fields if name in (field.alias, key))
    return _variant(annotation, given)


def _elsewhere(key: str, document: Document) -> str:
    """Return where a misplaced key belongs, if exactly one block has it."""
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


def _resolve(raw: Sequence[int | str]) -> tuple[Location, type[BaseModel] | None]:
    """Return pydantic's location without union tags, as the user writes it, and the block around it."""
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
    """Return the types that an annotation allows, without None."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [member for inner in get_args(annotation) for member in _members(inner)]
    # Annotated[X, ...]
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    return [] if annotation in (None, type(None)) else [annotation]


def _variant(annotation: Any, given: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the model of a block: the only one, or the one whose `source` or `target` the user wrote."""
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
