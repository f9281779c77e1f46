"""The model archive: the same bytes for the same files, whatever wrote them, and readable by every gzip."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.core.artifact.archive import file_sha256, write_archive
from modelstacks.core.artifact.model_files import FileTree, name_fault
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.errors import UsageError

NAMES = st.text(st.characters(codec="utf-8", categories=("Ll", "Nd")), min_size=1, max_size=12)
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join).filter(lambda path: not name_fault(path)),
    st.binary(max_size=70_000),
    min_size=1,
    max_size=5,
)


def lay_out(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write files; those whose name is taken, by a folder or in another case, are left out."""
    written = []
    tree = FileTree("files")
    for path, content in files.items():
        try:
            tree.add(path)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        except (OSError, UsageError):
            continue
        written.append(path)
    return written


@settings(max_examples=40, deadline=None)
@given(files=FILES)
def test_what_is_packed_comes_out_again(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    paths = lay_out(folder / "in", files)
    sha256, size = write_archive(folder / "in", paths, folder / "model.tar.gz")
    assert (file_sha256(folder / "model.tar.gz"), (folder / "model.tar.gz").stat().st_size) == (sha256, size)
    (folder / "out").mkdir()
    unpack(folder / "model.tar.gz", folder / "out")
    assert {p: (folder / "out" / p).read_bytes() for p in paths} == {p: files[p] for p in paths}
    with tarfile.open(folder / "model.tar.gz") as tar:  # and Python's own reader agrees
        assert sorted(tar.getnames()) == sorted(paths)


def test_neither_order_nor_times_nor_modes_change_a_byte(tmp_path: Path) -> None:
    for folder, mode, time in (("a", 0o600, 1), ("b", 0o755, 1_700_000_000)):
        lay_out(tmp_path / folder, {"model.json": b"{}", "code/inference.py": b"pass"})
        for path in (tmp_path / folder).rglob("*.*"):
            path.chmod(mode)
            os.utime(path, (time, time))
    first = write_archive(tmp_path / "a", ["model.json", "code/inference.py"], tmp_path / "a.tar.gz")
    second = write_archive(tmp_path / "b", ["code/inference.py", "model.json"], tmp_path / "b.tar.gz")
    assert first == second


def test_the_bytes_are_the_ones_that_every_release_made(tmp_path: Path) -> None:
    """A lock names an archive by its digest: the digest must not move with Python's or zlib's version."""
    lay_out(tmp_path / "in", {"model.json": b'{"learner": {}}\n' * 9000})
    sha256, size = write_archive(tmp_path / "in", ["model.json"], tmp_path / "model.tar.gz")
    assert (sha256, size) == ("b2123f8bb8db24607a6d5d02fd58b6b17c65837ed23dfcc2b27e3f144b74d00a", 153633)


def test_a_file_longer_than_one_block_is_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    lay_out(tmp_path / "in", {"model.onnx": content})
    write_archive(tmp_path / "in", ["model.onnx"], tmp_path / "model.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress((tmp_path / "model.tar.gz").read_bytes()))) as tar:
        packed = tar.extractfile("model.onnx")
        assert packed is not None
        assert hashlib.sha256(packed.read()).digest() == hashlib.sha256(content).digest()


def test_a_file_that_changes_before_it_is_packed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(b"{}")
    locked = hashlib.sha256(b"[]").hexdigest()
    with pytest.raises(UsageError, match=r"model.json was changed while it was packed; got sha256 44136fa"):
        write_archive(tmp_path, ["model.json"], tmp_path / "model.tar.gz", {"model.json": locked})


def test_a_file_that_was_replaced_by_a_link_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in/model.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=r"'model.json' is a link out of the model's folder"):
        write_archive(tmp_path / "in", ["model.json"], tmp_path / "model.tar.gz")
