"""Bodies of POST /invocations: each media type to the engine's tensors, and the answers back.

A media type is one entry in DECODERS and, where it can be answered, one in ENCODERS.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import orjson

from model_server.engines import Tensors
from model_server.files import npy_array, npz_arrays, pixels
from model_server.problems import Fault, ProblemError, invalid, malformed
from model_server.signature import Tensor
from model_server.validation import Array, InputReader

Entries = Array | list[Any]
Parameters = Mapping[str, object]
Decoded = tuple[Tensors, Parameters]

NO_PARAMETERS: Parameters = {}
OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Media:
    """A content type, taken apart."""

    type: str
    parameters: Mapping[str, str]


def dumps(value: Any) -> bytes:
    """JSON; numpy arrays as lists, float32 in as few digits as tell it apart, NaN as null."""
    return orjson.dumps(value, default=_to_list, option=OPTIONS)


def load_json(body: bytes) -> Any:
    """ProblemError 400 for what is not JSON: truncated, too deep, not UTF-8, NaN, numbers beyond a double."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed(f"the body is not JSON: {error}" if body else "the body is empty") from None


# Requests


def holds_booleans(body: bytes) -> bool:
    """Whether a JSON body may hold true or false; a text with these letters counts, too."""
    return b"true" in body or b"false" in body


def read_json(reader: InputReader, body: bytes, media: Media) -> Decoded:
    value = load_json(body)
    if holds_booleans(body):
        reader = reader.careful
    if type(value) is list:
        return reader.rows(value), NO_PARAMETERS
    if type(value) is not dict:
        raise invalid(Fault("the body must be an object or a list of rows"))
    if len(value) == 1 and "instances" in value:  # by far the most frequent
        return reader.rows(value["instances"]), NO_PARAMETERS
    return _read_object(reader, value)


def _read_object(reader: InputReader, value: dict[str, Any]) -> Decoded:
    parameters = value.pop("parameters", NO_PARAMETERS)
    if type(parameters) is not dict:
        raise invalid(Fault("must be an object", "parameters"))
    if "columns" in value and "data" in value:
        value.pop("index", None)  # pandas adds it
        columns, data = value.pop("columns"), value.pop("data")
        _nothing_else(value)
        return reader.split(columns, data), parameters
    keys = [key for key in ("instances", "inputs") if key in value]
    if len(keys) != 1:
        raise invalid(Fault('the body must have one of "instances", "inputs", or "columns" with "data"'))
    rows = value.pop(keys[0])
    _nothing_else(value)
    if type(rows) is dict:
        if keys[0] == "inputs" and not (reader.only is not None and reader.only.columns):
            return reader.columnar(rows), parameters
        raise invalid(Fault("must be a list of rows, not an object", keys[0]))
    if type(rows) is str:  # one text
        rows = [rows]
    return reader.rows(rows), parameters


def _nothing_else(value: dict[str, Any]) -> None:
    if value:
        raise invalid(*(Fault("is not known here", key) for key in list(value)[:20]))


def read_jsonlines(reader: InputReader, body: bytes, media: Media) -> Decoded:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise malformed("the body is empty")
    try:
        rows = [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        raise malformed(_first_bad_line(lines)) from None
    if holds_booleans(body):
        reader = reader.careful
    if type(rows[0]) is dict and rows[0].keys() == {"features"}:  # SageMaker's own form
        rows = [row.get("features") if type(row) is dict else row for row in rows]
    return reader.rows(rows), NO_PARAMETERS


def _first_bad_line(lines: list[bytes]) -> str:
    for i, line in enumerate(lines):
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"row {i} is not JSON: {error}"
    return "the body is not JSON lines"


def read_csv(reader: InputReader, body: bytes, media: Media) -> Decoded:
    header = media.parameters.get("header", "")
    if header not in ("", "present", "absent"):
        raise ProblemError(415, f"header={header} is not known; allowed: present, absent")
    if header != "present":
        rows = _plain_numbers(body, len(reader.columns) or _width(reader))
        if rows is not None:
            return reader.rows(rows), NO_PARAMETERS
    return _careful_csv(reader, body, header), NO_PARAMETERS


def _width(reader: InputReader) -> int:
    return reader.only.shape[1] if reader.only is not None and len(reader.only.shape) == 2 else -1


# Any of these would make a line of JSON more than numbers.
_NOT_NUMBERS = (b'"', b"[", b"{", b"t", b"f", b"n")


def _plain_numbers(body: bytes, width: int) -> list[Any] | None:
    """Rows of numbers, or None. Lines of plain numbers are JSON but for the brackets: the quickest parser."""
    if width < 1 or any(sign in body for sign in _NOT_NUMBERS):
        return None
    text = body.replace(b"\r\n", b"\n") if b"\r" in body else body
    try:
        rows: list[Any] = orjson.loads(b"[[" + text.rstrip(b"\n").replace(b"\n", b"],[") + b"]]")
    except orjson.JSONDecodeError:
        return None
    return rows if set(map(len, rows)) == {width} else None


def _careful_csv(reader: InputReader, body: bytes, header: str) -> Tensors:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(f"the body is not UTF-8: byte {error.start}") from None
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise malformed(f"the body is not CSV: {error}") from None
    if not rows:
        raise malformed("the body is empty")
    columns = reader.columns
    if header == "present" or (not header and _looks_like_header(rows[0], columns)):
        names = [name.strip() for name in rows.pop(0)]
        if not rows:
            raise invalid(Fault("there are no rows after the header"))
        return reader.split(names, _cells(reader, rows, names))
    if reader.only is not None and len(reader.only.shape) == 1:  # a text or a number a line
        reader._check_widths(rows, 1)  # noqa: SLF001
        return reader.rows([row[0] for row in _cells(reader, rows, list(columns))])
    return reader.rows(_cells(reader, rows, list(columns)))


def _looks_like_header(row: list[str], columns: tuple[str, ...]) -> bool:
    return bool(columns) and any(cell.strip() in columns for cell in row[: len(columns)])


def _cells(reader: InputReader, rows: list[list[str]], names: list[str]) -> list[list[Any]]:
    """Text to values: strings stay where the signature wants them, an empty cell is a missing value."""
    if reader.only is not None:
        return rows if reader.only.datatype == "BYTES" else [[_number(cell) for cell in row] for row in rows]
    texts = {tensor.name: tensor for tensor in reader.signature.inputs if tensor.datatype == "BYTES"}
    read = [_reads(texts.get(name)) for name in names]
    return [[read[i](cell) if i < len(read) else _number(cell) for i, cell in enumerate(row)] for row in rows]


def _reads(text: Tensor | None) -> Callable[[str], Any]:
    """How a column's cells are read: of a text column, or of one of numbers."""
    takes_text = (lambda cell: cell or None) if text and text.nullable else str
    return takes_text if text else _number


def _number(cell: str) -> Any:
    text = cell.strip()
    if text in ("", "NA", "NaN", "nan", "null"):
        return None
    try:
        value = int(text) if len(text) < 20 and text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return cell  # refused by the reader, which knows the row and the field
    return value if isfinite(value) else cell


def read_npy(reader: InputReader, body: bytes, media: Media) -> Decoded:
    return reader.arrays({"": npy_array(body)}), NO_PARAMETERS


def read_npz(reader: InputReader, body: bytes, media: Media) -> Decoded:
    return reader.arrays(npz_arrays(body)), NO_PARAMETERS


def read_image(reader: InputReader, body: bytes, media: Media) -> Decoded:
    tensor = reader.only
    image = tensor.image if tensor is not None else None
    if tensor is None or image is None:
        raise ProblemError(
            415,
            f"this model takes no image, so {media.type} cannot be read; allowed: {', '.join(NOT_IMAGES)}",
        )
    return reader.arrays({tensor.name: pixels(image, body)[None]}), NO_PARAMETERS


Decoder = Callable[[InputReader, bytes, Media], Decoded]

DECODERS: dict[str, Decoder] = {
    "application/json": read_json,
    "application/jsonlines": read_jsonlines,
    "application/x-jsonlines": read_jsonlines,
    "application/x-ndjson": read_jsonlines,
    "text/csv": read_csv,
    "application/x-npy": read_npy,
    "application/x-npz": read_npz,
    "application/octet-stream": read_image,
    "image/png": read_image,
    "image/jpeg": read_image,
}
_UNPACKING = (read_npz, read_image)
NOT_IMAGES = [name for name, decoder in DECODERS.items() if decoder is not read_image]

# Answers


def write_json(entries: Entries, outputs: Tensors) -> bytes:
    return orjson.dumps({"predictions": entries}, default=_to_list, option=OPTIONS)


def row_texts(entries: Entries) -> list[bytes] | None:
    """Each entry as JSON, written in one call; None where the text cannot be split again."""
    if not isinstance(entries, np.ndarray) or entries.dtype.kind not in "biuf" or 0 in entries.shape:
        return None
    if entries.ndim == 1:
        return dumps(entries)[1:-1].split(b",")
    if entries.ndim == 2:
        return [b"[%b]" % text for text in dumps(entries)[2:-2].split(b"],[")]
    return None


def write_jsonlines(entries: Entries, outputs: Tensors) -> bytes:
    if isinstance(entries, np.ndarray) and entries.dtype.kind in "biuf" and 0 not in entries.shape:
        # All in one call: a call a row would hold the event loop for seconds.
        depth = entries.ndim - 1
        comma, end = b"]" * depth + b"," + b"[" * depth, b"]" * depth + b"\n" + b"[" * depth
        return dumps(np.ascontiguousarray(entries))[1:-1].replace(comma, end) + b"\n"
    return b"".join(dumps(entry) + b"\n" for entry in entries)


def write_csv(entries: Entries, outputs: Tensors) -> bytes:
    if isinstance(entries, np.ndarray) and entries.dtype.kind in "biuf" and entries.ndim <= 2:
        text = dumps(entries)
        if b"null" in text:
            text = text.replace(b"null", b"nan")
        lines = text[2:-2].replace(b"],[", b"\n") if entries.ndim == 2 else text[1:-1].replace(b",", b"\n")
        return lines + b"\n"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for entry in entries:
        plain = entry.ravel().tolist() if isinstance(entry, np.ndarray) else entry
        values = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else [plain]
        writer.writerow([dumps(v).decode() if isinstance(v, dict | list) else v for v in values])
    return out.getvalue().encode()


def write_npy(entries: Entries, outputs: Tensors) -> bytes:
    array = np.asarray(entries)
    if array.dtype.kind not in "biufU":
        raise ProblemError(406, "this model's answer is not one array of numbers; ask for application/json")
    return _save(array)


def write_npz(entries: Entries, outputs: Tensors) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in outputs.items():
            archive.writestr(f"{name}.npy", _save(array.astype(str) if array.dtype.kind == "O" else array))
    return out.getvalue()


def _save(array: Array) -> bytes:
    return _npy_head(array.shape, array.dtype) + np.ascontiguousarray(array).tobytes()


@lru_cache(maxsize=64)
def _npy_head(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def _to_list(value: Any) -> Any:
    """What orjson does not know: arrays that are not contiguous or hold objects, numpy's scalars."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


Encoder = Callable[[Entries, Tensors], bytes]

ENCODERS: dict[str, Encoder] = {
    "application/json": write_json,
    "application/jsonlines": write_jsonlines,
    "text/csv": write_csv,
    "application/x-npy": write_npy,
    "application/x-npz": write_npz,
}
_DEFAULT_ANSWERS: dict[Decoder, str] = {read_jsonlines: "application/jsonlines", read_csv: "text/csv"}


@dataclass(frozen=True, slots=True)
class Negotiated:
    media: Media
    decode: Decoder
    encode: Encoder
    unpacks: bool  # a small body may become large
    answer: bytes  # the answer's content type


def negotiate(content_type: str, accept: str) -> Negotiated:
    """Raises ProblemError 415 for a body nobody reads and 406 for an answer nobody writes."""
    media = parse_media(content_type)
    if not media.type:
        raise ProblemError(415, f"there is no Content-Type; allowed: {', '.join(DECODERS)}")
    decoder = DECODERS.get(media.type)
    if decoder is None:
        raise ProblemError(415, f"Content-Type is {media.type!r}; allowed: {', '.join(DECODERS)}")
    charset = media.parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise ProblemError(415, f"charset is {charset!r}; allowed: utf-8")
    answer = choose_answer(accept, _DEFAULT_ANSWERS.get(decoder, "application/json"))
    return Negotiated(media, decoder, ENCODERS[answer], decoder in _UNPACKING, answer.encode())


def choose_answer(accept: str, default: str) -> str:
    """The media type that Accept likes best; `default` where it does not care."""
    if not accept.strip():
        return default
    best, best_quality = "", 0.0
    for part in accept.split(","):
        media = parse_media(part)
        try:
            quality = float(media.parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        found = _match(media.type, default)
        if found and quality > best_quality:
            best, best_quality = found, quality
    if not best:
        raise ProblemError(406, f"Accept is {accept!r}; allowed: {', '.join(ENCODERS)}")
    return best


def _match(wanted: str, default: str) -> str:
    if wanted == "*/*" or wanted == default:
        return default
    if wanted.endswith("/*"):
        family = wanted[:-1]
        return next((name for name in (default, *ENCODERS) if name.startswith(family)), "")
    wanted = {
        "application/x-jsonlines": "application/jsonlines",
        "application/x-ndjson": "application/jsonlines",
    }.get(wanted, wanted)
    return wanted if wanted in ENCODERS else ""


def parse_media(text: str) -> Media:
    kind, *parameters = text.split(";")
    pairs = (part.partition("=") for part in parameters)
    return Media(
        kind.strip().lower(),
        {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs if key.strip()},
    )
