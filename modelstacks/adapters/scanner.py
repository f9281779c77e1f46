"""Looks for hidden code in pickles, without running any of it.

Two checks are made. Ours is an allow-list: everything that the pickle would import and call must be part of
models, and used as models use it. Picklescan's is a list of known attacks. A pickle that cannot be followed
to its end is reported too, since code could come after the point where reading stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from modelstacks.adapters.pickles.containers import Stream, SuspectError, streams
from modelstacks.adapters.pickles.machine import MalformedError, follow
from modelstacks.core.artifact.model_files import open_file

__all__ = ["PickleScanner"]


class PickleScanner:
    """The Scanner port, for what joblib.load, torch.load, numpy.load and pickle.load would read."""

    def scan(self, directory: Path, paths: Sequence[str]) -> Sequence[str]:
        findings: list[str] = []
        for path in paths:
            with open_file(directory, path) as (content, _):
                findings += _scan(content, path)
        return findings


def _scan(content: IO[bytes], path: str) -> list[str]:
    findings: list[str] = []
    try:
        for stream in streams(content, path):
            start = stream.content.tell()
            found = _judge(stream)
            stream.content.seek(start)
            found |= _known_attacks(stream)
            findings += [f"{stream.name} {finding}" for finding in sorted(found)]
    except SuspectError as error:
        findings.append(f"{path} {error}")
    return findings


def _judge(stream: Stream) -> set[str]:
    """What the pickles of a stream would do; they must fill it to its end."""
    findings: set[str] = set()
    number = 0
    while not findings and number < stream.most and (stream.left() or not number):
        start = stream.content.tell()
        try:
            said, has_arrays = follow(stream, stream.loader)
        except MalformedError as error:
            findings.add(
                f"has {stream.size - start} bytes after its end that are not a pickle"
                if number
                else f"cannot be read to its end ({error})"
            )
            break
        findings |= said
        if has_arrays:
            findings |= _as_plain_pickle(stream, start)
        number += 1
    return findings


def _as_plain_pickle(stream: Stream, start: int) -> set[str]:
    """What pickle.load would do if a script called it: joblib's raw arrays are instructions to it.

    It is followed up to the first array of objects. joblib reads that as a pickle of its own; other readers
    continue with the wrong memo and find names that nobody wrote.
    """
    end = stream.content.tell()
    stream.content.seek(start)
    try:
        said, _ = follow(stream, "pickle")
    except MalformedError:
        said = set()
    stream.content.seek(end)
    return {finding for finding in said if finding.startswith(("imports ", "calls "))}


def _known_attacks(stream: Stream) -> set[str]:
    from picklescan import scanner

    # It logs each finding, which is reported here.
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    try:
        result = scanner.scan_pickle_bytes(stream.content, "")
    except Exception as error:  # it raises whatever a hostile pickle makes it raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return {f"cannot be followed by picklescan ({ascii(first)[1:80]})"}
    return {
        f"imports {found.module}.{found.name}"
        for found in result.globals
        if found.safety is scanner.SafetyLevel.Dangerous
    }
