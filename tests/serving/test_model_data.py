"""The model's archive: fetched by version from an S3 API, checked before it is opened, unpacked with care."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from model_server.model_data import MARKER, prepare
from model_server.problems import ModelRefusedError
from model_server.settings import Settings
from moto.server import ThreadedMotoServer
from support.model_server import ARTIFACTS, ModelServer


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Store:
    """An object store in memory: (bucket, key, version) to bytes, in small chunks."""

    def __init__(self, objects: dict[tuple[str, str, str], bytes]) -> None:
        self.objects = objects
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, bucket: str, key: str, version: str) -> Iterable[bytes]:
        self.asked.append((bucket, key, version))
        data = self.objects[bucket, key, version]
        return (data[i : i + 100] for i in range(0, len(data), 100))


GOOD = archive({"model.json": b"{}", "code/inference.py": b"pass"})


def settings(
    directory: Path, sha: str = "", uri: str = "s3://models/a%20b/m.tar.gz?versionId=v7"
) -> Settings:
    return Settings(model_name="m", model_dir=directory, model_uri=uri, model_sha256=sha)


def test_an_archive_is_unpacked_where_tarfile_has_no_filters_as_in_python_3_11_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extractall(
        self: tarfile.TarFile, path: str = ".", members: object = None, *, numeric_owner: bool = False
    ) -> None:
        raise AssertionError("the old extractall writes wherever the archive says")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    store = Store({("models", "a b/m.tar.gz", "v7"): GOOD})
    directory = prepare(settings(tmp_path / "model", sha256(GOOD)), store)
    assert (directory / "code" / "inference.py").read_bytes() == b"pass"


def test_an_archive_is_fetched_by_version_checked_and_unpacked(tmp_path: Path) -> None:
    store = Store({("models", "a b/m.tar.gz", "v7"): GOOD})
    assert prepare(settings(tmp_path / "model", sha256(GOOD)), store) == tmp_path / "model"
    found = {
        str(path.relative_to(tmp_path / "model"))
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    assert found == {"model.json", "code/inference.py", MARKER}


def test_a_second_start_fetches_nothing_unless_another_archive_is_meant(tmp_path: Path) -> None:
    other = archive({"model.json": b"[]"})
    store = Store({("models", "a b/m.tar.gz", "v7"): GOOD, ("models", "a b/m.tar.gz", "v8"): other})
    for _ in range(2):
        prepare(settings(tmp_path, sha256(GOOD)), store)
    assert len(store.asked) == 1
    prepare(settings(tmp_path, sha256(other), "s3://models/a%20b/m.tar.gz?versionId=v8"), store)
    assert (tmp_path / "model.json").read_bytes() == b"[]"


def held(directory: Path) -> set[str]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)) for path in paths} - {MARKER}


V7, V8 = ("models", "a b/m.tar.gz", "v7"), ("models", "a b/m.tar.gz", "v8")
URI_8 = "s3://models/a%20b/m.tar.gz?versionId=v8"


def test_nothing_of_an_earlier_model_is_left_beside_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no fetch put this here")
    # What was a folder is a file and the other way round.
    other = archive({"model.json/part": b"[]", "code": b"pass", MARKER: b"of somebody else"})
    store = Store({V7: archive({"model.json": b"{}", "code/a.py": b"", "signature.json": b""}), V8: other})
    prepare(settings(tmp_path), store)
    assert held(tmp_path) == {"notes.txt", "model.json", "code/a.py", "signature.json"}
    for _ in range(2):
        prepare(settings(tmp_path, uri=URI_8), store)
    assert held(tmp_path) == {"notes.txt", "model.json/part", "code"}
    assert len(store.asked) == 2


def test_a_fetch_that_ends_halfway_is_taken_for_neither_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store({V7: GOOD, V8: archive({"extra.json": b"", "model.json": b"[]"})})
    prepare(settings(tmp_path), store)
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "model.json":
            raise OSError("no space left on device")
        return rename(path, target)

    with monkeypatch.context() as broken, pytest.raises(OSError, match="no space"):
        broken.setattr(Path, "rename", full)
        prepare(settings(tmp_path, uri=URI_8), store)
    prepare(settings(tmp_path), store)
    assert [version for _, _, version in store.asked] == ["v7", "v8", "v7"]
    assert held(tmp_path) == {"model.json", "code/inference.py"}
    assert (tmp_path / "model.json").read_bytes() == b"{}"


def test_another_sha256_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    store = Store({("models", "a b/m.tar.gz", "v7"): GOOD})
    with pytest.raises(
        ModelRefusedError, match=f"has sha256 {sha256(GOOD)}, but MODEL_SERVER_MODEL_SHA256 is 000"
    ):
        prepare(settings(tmp_path, "0" * 64), store)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"not a tar", GOOD[:-20], b"", archive({})],
    ids=["not a tar", "cut short", "nothing", "no files"],  # an archive has the time in it
)
def test_a_broken_archive_is_one_clear_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelRefusedError, match="archive"):
        prepare(settings(tmp_path), Store({("models", "a b/m.tar.gz", "v7"): data}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "inner" / "model"
    try:
        prepare(settings(directory), Store({("models", "a b/m.tar.gz", "v7"): archive({name: b"x"})}))
    except ModelRefusedError as error:
        assert "archive" in str(error)
    outside = [path for path in tmp_path.rglob("outside") if directory not in path.parents]
    assert outside == []


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        link = tarfile.TarInfo("model.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ModelRefusedError, match="cannot be unpacked"):
        prepare(settings(tmp_path), Store({("models", "a b/m.tar.gz", "v7"): out.getvalue()}))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_the_server_fetches_its_model_from_s3_as_the_containers_environment_says(
    s3: str, start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    names = ("model.onnx", "signature.json")
    first = archive({name: (ARTIFACTS / "digits-onnx" / name).read_bytes() for name in names})
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="models")
    client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket="models", Key="digits.tar.gz", Body=first)["VersionId"]
    client.put_object(Bucket="models", Key="digits.tar.gz", Body=b"a later version that is not meant")
    environment = aws | {"AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1"}
    uri = f"s3://models/digits.tar.gz?versionId={version}"
    server = start(
        tmp_path / "model", model_uri=uri, model_sha256=sha256(first), environment=environment, engine="onnx"
    )
    assert httpx.post(f"{server.url}/invocations", json={"instances": [[0.0] * 64]}).status_code == 200
    assert any(line["message"] == "model fetched" for line in server.log())
    for wrong, named in (
        ({"model_uri": uri, "model_sha256": "0" * 64}, "has sha256"),
        ({"model_uri": "s3://models/nothing.tar.gz"}, "cannot fetch s3://models/nothing.tar.gz"),
    ):
        refused = start(tmp_path / named[:3], wait=False, environment=environment, **wrong)
        assert refused.process.wait(60) == 78
        assert named in refused.log()[-1]["message"]
        assert refused.log()[-1]["level"] == "error"
