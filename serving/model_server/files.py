"""Arrays from the bytes of files that callers send: npy, npz and pictures.

Sizes, shapes, types and unpacked lengths that a file states are checked before they are used.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from model_server.problems import ProblemError, malformed
from model_server.signature import ImageFormat
from model_server.validation import Array

MAX_PIXELS = 50_000_000
MAX_DIMENSIONS = 64  # numpy's own
MAX_LENGTH = 1 << 48  # of one dimension; no body has more


def npy_array(body: bytes) -> Array:
    """The array in an npy file. Its header is trusted only once the body has as many bytes as it says."""
    if body[:6] != b"\x93NUMPY" or len(body) < 12 or body[6] not in (1, 2):
        raise malformed("the body is not an npy file (version 1 or 2)")
    size = int.from_bytes(body[8:10] if body[6] == 1 else body[8:12], "little")
    start = (10 if body[6] == 1 else 12) + size
    header = bytes(body[:start])
    if len(header) < start or size > 10_000:
        raise malformed("the npy header is cut short or too long")
    shape, fortran, dtype = _npy_header(header)
    count = 1
    for length in shape:
        count *= length
    if len(body) - start != count * dtype.itemsize:
        raise malformed(
            f"the npy header says {count * dtype.itemsize} bytes of data, but {len(body) - start} are there"
        )
    if dtype.kind == "U":
        _check_characters(np.frombuffer(body, dtype.byteorder + "u4", offset=start))
    array = np.frombuffer(body, dtype, count, start) if count else np.empty(0, dtype)
    try:
        return array.reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # an empty array whose other lengths are beyond numpy's bounds
        raise malformed(f"the npy header's shape is none that numpy takes: {error}") from None


def _check_characters(codes: Array) -> None:
    """Refuses code points that numpy accepts and Python does not."""
    wrong = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))
    if wrong.any():
        raise malformed(f"the npy array holds {int(codes[wrong][0]):#x}, which is no character")


@lru_cache(maxsize=64)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    file = io.BytesIO(header[8:])
    read = np.lib.format.read_array_header_1_0 if header[6] == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except Exception:  # a made-up header can raise anything; numpy's own words are not for callers
        raise malformed("the npy header cannot be read") from None
    if dtype.hasobject or dtype.names or dtype.kind not in "biufU" or not dtype.itemsize:
        raise ProblemError(415, f"an npy array of {dtype} is not taken; allowed: numbers, booleans, strings")
    if any(length < 0 for length in shape):
        raise malformed("the npy header has a negative length")
    if len(shape) > MAX_DIMENSIONS or any(length > MAX_LENGTH for length in shape):
        raise malformed(
            f"the npy header has more than {MAX_DIMENSIONS} dimensions, or one longer than {MAX_LENGTH}"
        )
    return tuple(int(length) for length in shape), bool(fortran), dtype


def npz_arrays(body: bytes) -> dict[str, Array]:
    """The arrays in an npz file by name."""
    import zipfile  # rare, and three milliseconds of every start

    limit = 8 * max(len(body), 1 << 20)  # savez_compressed shrinks numbers by less; more is a bomb
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if not entries or len(entries) > 64 or sum(entry.file_size for entry in entries) > limit:
                raise malformed(f"an npz must hold 1 to 64 arrays that unpack to at most {limit} bytes")
            for entry in entries:
                with archive.open(entry) as file:
                    data = file.read(limit + 1)
                if len(data) > limit:
                    raise malformed(f"{entry.filename} unpacks to more than {limit} bytes")
                arrays[entry.filename.removesuffix(".npy")] = npy_array(data)
    except ProblemError:
        raise
    except Exception:  # zipfile and zlib raise many kinds on a broken archive
        raise malformed("the body is not an npz file") from None
    return arrays


def pixels(image: ImageFormat, body: bytes) -> Array:
    """One picture, resized, as the signature describes it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise malformed(f"the image has more than {MAX_PIXELS} pixels")
            scaled = picture.convert(image.mode).resize(
                (image.width, image.height), Image.Resampling.BILINEAR
            )
    except ProblemError:
        raise
    except Exception:  # Pillow's plugins raise many kinds on a broken file
        raise malformed("the body is not an image that can be read") from None
    values: Array = np.asarray(scaled, dtype=np.float32).reshape(image.height, image.width, -1) * np.float32(
        image.scale
    )
    if image.mean:
        values = values - np.asarray(image.mean, dtype=np.float32)
    if image.std:
        values = values / np.asarray(image.std, dtype=np.float32)
    if image.layout == "CHW":
        return np.ascontiguousarray(values.transpose(2, 0, 1))
    return values.reshape(-1) if image.layout == "flat" else values
