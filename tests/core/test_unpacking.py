"""Unpacking what a stranger packed: nothing outside, nothing but files, and no more than the bounds."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.core.artifact.unpacking import Bounds, unpack
from modelstacks.core.errors import UsageError


def pack(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refusal(archive: Path, destination: Path, bounds: Bounds | None = None) -> str:
    destination.mkdir(exist_ok=True)
    with pytest.raises(UsageError) as refused:
        unpack(archive, destination, bounds, where="model.tar.gz")
    return str(refused.value)


def test_files_and_folders_come_out(tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar.gz",
        special("./code", tarfile.DIRTYPE),
        ("./code/inference.py", b"pass"),
        ("model.json", b"{}"),
    )
    unpack(archive, tmp_path)
    assert (tmp_path / "code/inference.py").read_bytes() == b"pass"
    assert (tmp_path / "model.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..", "C:/evil", "a\\..\\evil"])
def test_a_name_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    message = refusal(pack(tmp_path / "a.tar.gz", (name, b"x")), tmp_path / "out")
    assert message == f"model.tar.gz: {name!r} would be written outside the model's folder; fix: rename it"
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_refused_even_one_that_stays_inside(kind: bytes, tmp_path: Path) -> None:
    message = refusal(
        pack(tmp_path / "a.tar.gz", ("model.json", b"{}"), special("link", kind, "model.json")),
        tmp_path / "out",
    )
    assert message == (
        "model.tar.gz: 'link' is a link; fix: pack the files themselves: tar --dereference --hard-dereference"
    )


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    refusal(
        pack(tmp_path / "a.tar.gz", special("dir", tarfile.SYMTYPE, str(target)), ("dir/evil", b"x")),
        tmp_path / "out",
    )
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"])
def test_a_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    message = refusal(pack(tmp_path / "a.tar.gz", special("device", kind)), tmp_path / "out")
    assert "'device'" in message
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("second", ["model.json", "./model.json"])
def test_a_name_that_is_listed_twice_is_refused(second: str, tmp_path: Path) -> None:
    message = refusal(pack(tmp_path / "a.tar.gz", ("model.json", b"{}"), (second, b"[]")), tmp_path / "out")
    assert message == "model.tar.gz: 'model.json' is listed twice"


@pytest.mark.parametrize("second", ["MODEL.json", "\uff4dodel.json"])
def test_names_that_some_systems_take_for_one_are_refused(second: str, tmp_path: Path) -> None:
    message = refusal(pack(tmp_path / "a.tar.gz", ("model.json", b"{}"), (second, b"[]")), tmp_path / "out")
    assert f"model.tar.gz: {second!a} and 'model.json' are one name" in message


@pytest.mark.parametrize("name", ["a\u202egnp.py", "a\u200b.json", "a\x1b[2J", "a\u0301.json", "CON", "a."])
def test_a_name_that_reads_as_another_is_refused(name: str, tmp_path: Path) -> None:
    message = refusal(pack(tmp_path / "a.tar.gz", (name, b"x")), tmp_path / "out")
    assert message.startswith(f"model.tar.gz: {name!a} ")
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_are_counted_too(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", *(special(f"d{n}", tarfile.DIRTYPE) for n in range(20_001)))
    assert "it holds more than 20000 files and folders" in refusal(archive, tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", ("zeros", bytes(20_000_000)))
    message = refusal(archive, tmp_path / "out", Bounds(ratio=100, free=1_000_000))
    packed = archive.stat().st_size
    assert (
        message == f"model.tar.gz: {packed} bytes would unpack to more than {packed * 100}, as a bomb would"
    )
    assert not (tmp_path / "out/zeros").exists()


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", *((f"f{n}", b"") for n in range(6)))
    assert refusal(archive, tmp_path / "out", Bounds(files=5)).startswith(
        "model.tar.gz: it holds more than 5 files; fix: "
    )


def test_more_bytes_than_the_bound_are_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", ("a", bytes(600)), ("b", bytes(600)))
    assert "would unpack to more than 1000" in refusal(archive, tmp_path / "out", Bounds(size=1000))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    assert "a header of" in refusal(tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "the archive is damaged"),
        (lambda data: data[:40] + bytes([data[40] ^ 0xFF]) + data[41:], "the archive is damaged"),
        (lambda _: b"PK\x03\x04 a zip", "not a .tar.gz: the file is not gzip-compressed"),
        (lambda _: b"", "not a .tar.gz: the file is not gzip-compressed"),
        (lambda _: gzip.compress(b"no tar at all" * 100), "the archive is damaged"),
    ],
    ids=["cut short", "a flipped byte", "a zip", "empty", "gzip of something else"],
)
def test_a_damaged_archive_is_refused(spoil: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    good = pack(tmp_path / "a.tar.gz", ("model.json", bytes(range(256)) * 64)).read_bytes()
    (tmp_path / "bad.tar.gz").write_bytes(spoil(good))
    assert words in refusal(tmp_path / "bad.tar.gz", tmp_path / "out")


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(min_size=1, max_size=30).filter(lambda name: "\0" not in name),
    content=st.binary(max_size=50),
)
def test_whatever_a_member_is_called_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("unpack")
    try:
        pack(folder / "a.tar.gz", (name, content))
    except UnicodeEncodeError:
        return
    (folder / "out").mkdir()
    with contextlib.suppress(UsageError):
        unpack(folder / "a.tar.gz", folder / "out")
    assert {path.name for path in folder.iterdir()} == {"a.tar.gz", "out"}


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=600))
def test_any_bytes_are_unpacked_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("unpack")
    (folder / "a.tar.gz").write_bytes(gzip.compress(content))
    (folder / "out").mkdir()
    try:
        unpack(folder / "a.tar.gz", folder / "out")
    except UsageError as error:
        assert str(error)
