"""YAML documents with the line of each value.

PyYAML parses the structure. Plain scalars are resolved here by the rules of YAML 1.2: `yes` is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.core.errors import Fault, SpecInvalid, relative

if TYPE_CHECKING:
    from yaml import Node

__all__ = ["Document", "Location", "load_document"]

Location = tuple[str | int, ...]

# In bytes. A spec has a few hundred lines at most.
LARGEST_DOCUMENT = 1 << 20

_TAG = "tag:yaml.org,2002:"
_KINDS = {"scalar": "str", "sequence": "seq", "mapping": "map"}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,4})?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


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
        """Return the line of `location`, or of its nearest ancestor in the document."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def load_document(path: Path) -> Document:
    """Read one YAML mapping.

    Raises:
        SpecInvalid: the file cannot be read, is not UTF-8, is not YAML, repeats a key, uses aliases or tags,
            or is not a mapping.
    """
    text = _read(path)
    root = _compose(path, text)
    if root is None:
        raise _refusal(path, 1, "the file is empty", "modelstacks init writes a spec to start from")
    reader = _Reader(relative(path))
    data = reader.read(root, ())
    if reader.faults:
        raise SpecInvalid(reader.faults)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise _refusal(path, 1, f"a spec is a mapping of keys to values, got {kind}")
    return Document(path, data, reader.lines)


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _refusal(path, 1, "no such file", "modelstacks init writes a spec to start from") from None
    except IsADirectoryError:
        raise _refusal(path, 1, "this is a folder, not a spec", "name the YAML file in it") from None
    except OSError as error:
        raise _refusal(path, 1, f"cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST_DOCUMENT:
        raise _refusal(path, 1, f"the file is {len(raw)} bytes; a spec has at most {LARGEST_DOCUMENT}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refusal(path, line, "not UTF-8 text", "save the file as UTF-8") from None


def _compose(path: Path, text: str) -> Node | None:
    # Imported here because `--help` does not need it.
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        # Then it is the second half of a sentence that begins in the context.
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        fix = "indent with spaces" if "\\t" in problem else ""
        raise _refusal(path, mark.line + 1 if mark else 1, f"not valid YAML: {problem}", fix) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refusal(path, line, f"not valid YAML: {error.reason}") from None
    except RecursionError:
        raise _refusal(path, 1, "not valid YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _refusal(path, 1, f"not valid YAML: {error}") from None


class _Reader:
    """Turns nodes into data, and collects the lines and faults."""

    def __init__(self, file: str) -> None:
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self._file = file
        self._seen: set[int] = set()

    def read(self, node: Any, location: Location) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(location, line)
        if id(node) in self._seen:
            self._fault(line, location, "YAML aliases are not allowed", "write the value out")
            return None
        self._seen.add(id(node))
        if node.tag != _TAG + _KINDS[node.id]:
            tag = node.tag.removeprefix(_TAG).lstrip("!")
            self._fault(line, location, f"the tag !{tag} is not allowed", "remove the tag")
            return None
        if node.id == "sequence":
            return [self.read(item, (*location, index)) for index, item in enumerate(node.value)]
        if node.id == "mapping":
            return self._mapping(node, location)
        return _plain(node.value) if node.style is None else node.value

    def _mapping(self, node: Any, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.id != "scalar":
                self._fault(line, location, "a key must be plain text")
                continue
            key = key_node.value
            here = (*location, key)
            if key in mapping:
                first = self.lines[here]
                self._fault(line, here, f"duplicate key (first on line {first})", "keep one of them")
                continue
            self.lines[here] = line
            mapping[key] = self.read(value_node, here)
        return mapping

    def _fault(self, line: int, location: Location, what: str, fix: str = "") -> None:
        self.faults.append(Fault(self._file, line, ".".join(map(str, location)), what, fix=fix))


def _plain(text: str) -> Any:
    """Resolve a scalar without quotes. Dates stay text, because no field of a spec is a datetime."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _refusal(path: Path, line: int, what: str, fix: str = "") -> SpecInvalid:
    return SpecInvalid([Fault(relative(path), line, "", what, fix=fix)])
