"""A model's files: plain files with plain names, no more than a model has, and no link that leads out."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstacks.core.artifact.model_files import FileTree, name_fault, open_file, pin, walk
from modelstacks.core.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "model.json").write_bytes(b"{}")
    return made


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as refused:
        walk(folder, "m")
    return str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        *("model.json", "code/inference.py", "1_Pooling/config.json", "a b.txt"),
        *("größe.json", "模型/権重.bin", "a-b_c+d@e,f.x"),
    ],
)
def test_ordinary_names_are_taken(path: str) -> None:
    assert name_fault(path) == ""


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/etc/passwd", "would be written outside"),
        ("a/../../b", "would be written outside"),
        ("a\\..\\b", "would be written outside"),
        ("C:/b", "would be written outside"),
        ("", "is not a plain path"),
        ("a//b", "is not a plain path"),
        ("./a", "is not a plain path"),
        ("a\\b", "has the character \\, which Windows"),
        ("a?b", "has the character ?, which Windows"),
        ("ab:stream", "has the character :, which Windows"),
        ("aux.json", "is the name of a device on Windows"),
        ("model.json.", "ends with a dot or a space"),
        ("model.json ", "ends with a dot or a space"),
        (" model.json", "begins with a space"),
        ("a\nb", "has a control character (U+000A)"),
        ("a\x7fb", "has a control character (U+007F)"),
        ("a\x9bb", "has a control character (U+009B)"),
        ("a\u2028b", "has a control character (U+2028)"),
        ("a\u202egnp.py", "changes the direction of text (U+202E)"),
        ("a\u2066b", "changes the direction of text (U+2066)"),
        ("a\u200bb", "has an invisible character (U+200B)"),
        ("a\u200db", "has an invisible character (U+200D)"),
        ("\ufeffa", "has an invisible character (U+FEFF)"),
        ("a\U000e0041", "has an invisible character (U+E0041)"),
        ("a\u3164", "has an invisible character (U+3164)"),
        ("a\ufe0f", "has an invisible character (U+FE0F)"),
        ("a\xa0b", "has a space other than U+0020 (U+00A0)"),
        ("a\ue000", "has a character that Unicode does not define (U+E000)"),
        ("a\udce9", "is not valid UTF-8"),
        ("a\u0301", "is not in Unicode's composed form"),
        ("a" * 256, "has a name of more than 255 bytes"),
        ("é" * 128, "has a name of more than 255 bytes"),
        ("/".join(["a" * 200] * 6), "has a path of more than 1000 bytes"),
        ("/".join("a" * 33), "is more than 32 folders deep"),
    ],
    ids=ascii,
)
def test_a_name_that_is_not_the_same_everywhere_is_refused(path: str, fault: str) -> None:
    assert fault in name_fault(path)


def test_a_walk_finds_files_in_folders_and_leaves_hidden_ones_out(folder: Path) -> None:
    for path in ("code/inference.py", ".git/config", "code/__pycache__/x.pyc", "code/.env"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    assert walk(folder) == ["code/inference.py", "model.json"]


def test_a_link_within_the_folder_is_the_file_that_it_leads_to(folder: Path) -> None:
    (folder / "v1").mkdir()
    (folder / "v1/model.bin").symlink_to("../model.json")
    assert walk(folder) == ["model.json", "v1/model.bin"]
    assert pin(folder, "v1/model.bin") == pin(folder, "model.json")


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_out_of_the_folder_is_refused_with_where_it_leads(folder: Path, relative: bool) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"secret")
    (folder / "model.onnx_data").symlink_to("../secret" if relative else secret)
    assert refusal(folder) == (
        f"m: 'model.onnx_data' is a link out of the model's folder; got '{secret}'; "
        "allowed: links to files in the folder; fix: put a copy of the file in its place, if it is yours"
    )


def test_a_link_through_a_neighbour_that_leads_back_is_judged_by_where_it_ends(folder: Path) -> None:
    (folder / "again.json").symlink_to(f"../{folder.name}/model.json")
    assert walk(folder) == ["again.json", "model.json"]
    (folder.parent / f"{folder.name}-2").mkdir()  # begins with the same letters
    (folder.parent / f"{folder.name}-2/x").write_bytes(b"x")
    (folder / "x").symlink_to(f"../{folder.name}-2/x")
    assert "'x' is a link out of the model's folder" in refusal(folder)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing", "is a link that leads nowhere; got 'nothing'"),
        ("link", "is a link that leads nowhere; got 'link'"),
        ("sub", "is a link to a folder; got 'sub'"),
        ("..", "is a link out of the model's folder"),
        ("/proc/self/environ", "is a link out of the model's folder"),
        ("/dev/zero", "is a link out of the model's folder"),
        (".hidden", "is a link to a hidden file; got '.hidden'"),
    ],
)
def test_a_link_to_anything_but_a_file_of_the_folder_is_refused(
    target: str, words: str, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / ".hidden").write_bytes(b"x")
    (folder / "link").symlink_to(target)
    assert f"m: 'link' {words}" in refusal(folder)


def test_a_hard_link_to_a_file_outside_is_refused(folder: Path) -> None:
    (folder / "data").hardlink_to(folder / "model.json")
    assert walk(folder) == ["data", "model.json"]  # both names are in the folder
    outside = folder.parent / "outside"
    outside.write_bytes(b"secret")
    (folder / "secret").hardlink_to(outside)
    message = refusal(folder)
    assert message.startswith(
        "m: 'secret' is a hard link: the same file has a name outside the folder; got 2"
    )
    assert "cp secret copy && mv copy secret" in message
    (folder / "link").symlink_to("secret")  # does not count as a name of the file
    assert "is a hard link" in refusal(folder)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)
        made.bind(path.name)


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a FIFO"), (a_socket, "a socket")])
def test_what_is_neither_a_file_nor_a_folder_is_refused(
    make: Callable[[Path], None], kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    make(folder / "model.onnx")
    assert refusal(folder) == f"m: 'model.onnx' is {kind}; allowed: files and folders; fix: remove it"


def test_a_folder_of_very_many_folders_is_refused(folder: Path) -> None:
    for number in range(20_001):
        (folder / f"d{number}").mkdir()
    assert refusal(folder).startswith("m: it holds more than 20000 files and folders; fix: ")


def test_a_deep_folder_is_refused(folder: Path) -> None:
    (folder / "/".join("d" * 40)).mkdir(parents=True)
    assert "is more than 32 folders deep" in refusal(folder)


def test_names_that_fold_to_one_are_refused(folder: Path) -> None:
    (folder / "Model.json").write_bytes(b"[]")
    assert "are one name where case is ignored" in refusal(folder)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a", "a", "'a' is listed twice"),
        ("a", "a/b", "'a' is both a file and a folder"),
        ("a/b", "a", "'a' is both a file and a folder"),
        ("A/x", "a/y", "'a' and 'A' are one name"),
        ("straße", "STRASSE", "are one name"),
        ("ﬁle", "file", "'file' and '\\ufb01le' are one name"),
    ],
)
def test_paths_that_cannot_both_be_there_are_refused(first: str, second: str, words: str) -> None:
    tree = FileTree("m")
    tree.add(first)
    with pytest.raises(UsageError) as refused:
        tree.add(second)
    assert words in str(refused.value)


def test_a_file_whose_size_is_not_what_it_says_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'status' changes while it is read; got more than 0 bytes"):
        pin(Path("/proc/self"), "status")


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_what_takes_a_files_place_after_the_walk_is_not_read(kind: str, folder: Path) -> None:
    assert walk(folder) == ["model.json"]
    (folder / "model.json").unlink()
    if kind == "link":
        (folder / "model.json").symlink_to("/etc/hostname")
    else:
        os.mkfifo(folder / "model.json")  # opening one waits for a writer
    with pytest.raises(UsageError, match=r"'model.json' is (a link out of the model's folder|no plain file)"):
        pin(folder, "model.json")
    with pytest.raises(UsageError), open_file(folder, "model.json"):
        pass
