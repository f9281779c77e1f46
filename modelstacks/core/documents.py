"""YAML documents that remember on which line each value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelstacks.core.errors import Fault, SpecInvalid, relative

__all__ = ["Document", "Location", "load_document"]

Location = tuple[str | int, ...]

LARGEST_DOCUMENT = 1 << 20  # bytes; a spec is some hundred lines


@dataclass(frozen=True)
class Document:
    """A parsed YAML mapping and the line (1-based) of every key and item in it."""

    path: Path
    data: dict[str, Any]
    lines: dict[Location, int] = field(repr=False)

    @property
    def file(self) -> str:
        return relative(self.path)

    def line(self, location: Location) -> int:
        """The line of `location`, or of its nearest ancestor that is written down."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def load_document(path: Path) -> Document:
    """Read one YAML mapping.

    Raises:
        SpecInvalid: the file cannot be read, is not UTF-8, is not YAML, repeats a key, uses aliases, or is
            not a mapping.
    """
    text = _read(path)
    from ruamel.yaml import YAML  # 30 ms that `--help` does not need
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    def refuse(line: int, what: str, fix: str = "") -> SpecInvalid:
        return SpecInvalid([Fault(relative(path), line, "", what, fix=fix)])

    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        if problem.startswith("but "):  # the other half of a sentence
            problem = f"{error.context}, {problem}"
        fix = "indent with spaces" if "\\t" in problem else ""
        raise refuse(mark.line + 1 if mark else 1, f"not valid YAML: {problem}", fix) from None
    except YAMLError as error:
        line = getattr(error, "position", None)
        raise refuse(
            text.count("\n", 0, line) + 1 if isinstance(line, int) else 1,
            "not valid YAML: " + str(getattr(error, "reason", None) or error).splitlines()[0],
        ) from None
    except RecursionError:
        raise refuse(1, "not valid YAML: it is nested too deeply") from None
    except ValueError as error:
        raise refuse(1, f"not valid YAML: {error}") from None
    if root is None:
        raise refuse(1, "the file is empty", "modelstacks init writes a spec to start from")

    faults: list[Fault] = []
    lines: dict[Location, int] = {}
    seen: set[int] = set()

    def build(node: Any, location: Location) -> Any:
        lines.setdefault(location, node.start_mark.line + 1)
        line = node.start_mark.line + 1
        if node.id != "scalar":
            if id(node) in seen:
                faults.append(
                    Fault(
                        relative(path),
                        line,
                        _dotted(location),
                        "YAML aliases are not allowed",
                        fix="write the value out",
                    )
                )
                return None
            seen.add(id(node))
        if node.id == "sequence":
            return [build(item, (*location, index)) for index, item in enumerate(node.value)]
        if node.id == "mapping":
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value) if key_node.id == "scalar" else "?"
                here = (*location, key)
                key_line = key_node.start_mark.line + 1
                if key_node.id != "scalar":
                    faults.append(
                        Fault(relative(path), key_line, _dotted(location), "a key must be plain text")
                    )
                    continue
                if key in mapping:
                    first = lines[here]
                    faults.append(
                        Fault(
                            relative(path),
                            key_line,
                            _dotted(here),
                            f"the key stands twice (first on line {first})",
                            fix="keep one of them",
                        )
                    )
                    continue
                lines[here] = key_line
                mapping[key] = build(value_node, here)
            return mapping
        try:
            return _scalar(node.tag, node.value)
        except ValueError as error:
            faults.append(Fault(relative(path), line, _dotted(location), str(error)))
            return None

    data = build(root, ())
    if faults:
        raise SpecInvalid(faults)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise refuse(1, f"a spec is a mapping of keys to values, got {kind}")
    return Document(path, data, lines)


def _read(path: Path) -> str:
    def refuse(what: str, fix: str = "") -> SpecInvalid:
        return SpecInvalid([Fault(relative(path), 1, "", what, fix=fix)])

    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refuse("no such file", "modelstacks init writes a spec to start from") from None
    except IsADirectoryError:
        raise refuse("this is a folder, not a spec", "name the YAML file in it") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST_DOCUMENT:
        raise refuse(f"the file is {len(raw)} bytes; a spec has at most {LARGEST_DOCUMENT}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecInvalid(
            [Fault(relative(path), line, "", "not UTF-8 text", fix="save the file as UTF-8")]
        ) from None


def _scalar(tag: str, text: str) -> Any:
    """YAML 1.2's core types.

    A date stays text: nothing in a spec wants a datetime. ValueError for any other tag.
    """
    kind = tag.removeprefix("tag:yaml.org,2002:")
    if kind in ("str", "timestamp"):
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        digits = text.replace("_", "").lstrip("+")
        return int(digits, 10 if digits.lstrip("-").isdigit() else 0)
    if kind == "float":
        return float(
            text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".nan", "nan").lower()
        )
    raise ValueError(f"the tag !{kind.lstrip('!')} is not allowed")


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
