"""Images without Docker: built once for each set of inputs, found by name, refused with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from modelstacks.adapters.serving_environment import ImageStore
from modelstacks.cloud.host.docker import IMAGES_VARIABLE, main, resolve, write_launcher
from modelstacks.core.errors import EnvironmentFault, UsageError

DOCKERFILE = """\
FROM python
ARG ENGINE=onnx
COPY install.sh server/ ./
RUN sh install.sh /opt/server "$ENGINE"
ENV PATH=/opt/server/venv/bin:$PATH
EXPOSE 8080
ENTRYPOINT ["python", "-m", "server"]
CMD ["serve"]
"""
INSTALL = """\
set -e
[ "$2" != broken ] || { echo "no such engine: $2" >&2; exit 3; }
mkdir -p "$1/venv/bin"
ln -s "$PYTHON" "$1/venv/bin/python"
echo "$2" >> "$1/built"
"""
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/cdk-hnb659fds-container-assets"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "server").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "install.sh").write_text(INSTALL)
    (folder / "server" / "main.py").write_text("print('v1')")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def test_an_image_is_a_folder_with_an_interpreter_and_a_command(context: Path, store: ImageStore) -> None:
    image = store.build(context, {"ENGINE": "xgboost"})
    assert (image.entrypoint, image.cmd, image.exposed_port) == (("python", "-m", "server"), ("serve",), 8080)
    assert image.env["PATH"].split(":")[0] == str(image.python.parent)
    said = subprocess.run([image.python, "-c", "print(1 + 1)"], capture_output=True, text=True, check=True)
    assert said.stdout == "2\n"
    assert (image.root / "opt/server/built").read_text() == "xgboost\n"


def test_the_same_inputs_are_built_once(context: Path, store: ImageStore) -> None:
    notes: list[str] = []
    first = store.build(context, {"ENGINE": "xgboost"}, note=notes.append)
    (context / "server" / "__pycache__").mkdir()
    (context / "server" / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"left behind by a run")
    assert store.build(context, {"ENGINE": "xgboost"}, note=notes.append).digest == first.digest
    assert notes == ["installing xgboost"]
    assert (first.root / "opt/server/built").read_text() == "xgboost\n"


def test_other_inputs_make_another_image(context: Path, store: ImageStore) -> None:
    first = store.build(context, {"ENGINE": "xgboost"})
    other_engine = store.build(context, {"ENGINE": "sklearn"})
    (context / "server" / "main.py").write_text("print('v2')")
    other_source = store.build(context, {"ENGINE": "xgboost"})
    assert len({first.digest, other_engine.digest, other_source.digest}) == 3


def test_two_at_once_build_once(context: Path, store: ImageStore) -> None:
    threads = [threading.Thread(target=store.build, args=(context, {"ENGINE": "xgboost"})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    image = store.build(context, {"ENGINE": "xgboost"})
    assert (image.root / "opt/server/built").read_text() == "xgboost\n"


def test_a_build_that_was_cut_off_is_done_again(context: Path, store: ImageStore) -> None:
    image = store.build(context, {"ENGINE": "xgboost"})
    (image.root / "image.json").unlink()
    again = store.build(context, {"ENGINE": "xgboost"})
    assert (again.root / "opt/server/built").read_text() == "xgboost\n"


def test_an_installation_that_fails_says_its_last_words_and_leaves_nothing(
    context: Path, store: ImageStore
) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"install\.sh broken ended with exit code 3; got no such engine: broken"
    ):
        store.build(context, {"ENGINE": "broken"})
    assert [path for path in store.root.iterdir() if path.is_dir()] == []


def test_an_image_is_found_by_its_names(context: Path, store: ImageStore) -> None:
    image = store.build(context, {"ENGINE": "xgboost"})
    store.tag(image.digest, "cdkasset-1")
    store.tag("cdkasset-1", f"{ECR}:1")
    assert store.resolve(f"{ECR}:1") == image == resolve(f"{ECR}:1", store.root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{ECR}:2", "has not been built here; fix: modelstacks up"),
        (
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/xgboost:1.7",
            "an image that AWS publishes cannot be run",
        ),
        ("../../etc", "has not been built here"),
    ],
)
def test_an_image_that_is_not_here_is_refused_with_the_reason(
    store: ImageStore, name: str, message: str
) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        store.resolve(name)


def test_a_damaged_list_of_names_says_how_to_mend_it(store: ImageStore) -> None:
    store.root.mkdir()
    (store.root / "tags.json").write_text("{")
    with pytest.raises(EnvironmentFault, match=r"tags.json is damaged; fix: delete it: rm "):
        store.resolve("x")


def test_a_copy_of_nothing_is_refused(context: Path, store: ImageStore) -> None:
    (context / "install.sh").unlink()
    with pytest.raises(UsageError, match=r"COPY install.sh: there is no such file"):
        store.build(context, {})


def test_the_stand_in_performs_what_the_cdk_cli_asks(
    context: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(IMAGES_VARIABLE, str(store.root))
    tag = "cdkasset-0123"
    assert main(["inspect", tag]) == 1
    build = [
        "build",
        "--build-arg",
        "ENGINE=xgboost",
        "--tag",
        tag,
        "--platform",
        "linux/arm64",
        str(context),
    ]
    assert main(build) == 0
    assert main(["inspect", tag]) == 0
    digest = json.loads(capsys.readouterr().out)[0]["Id"].removeprefix("sha256:")
    assert main(["tag", tag, f"{ECR}:0123"]) == 0
    assert main(["push", f"{ECR}:0123"]) == 0
    assert store.resolve(f"{ECR}:0123").digest == digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "image"], "the stand-in for docker does not know `docker run`"),
        (["build", "--secret", "id=x", "."], "docker build: --secret cannot be performed without Docker"),
        (["push", f"{ECR}:9"], "has not been built here"),
        (["tag", "nothing", "x"], "no such image: nothing"),
    ],
)
def test_the_stand_in_refuses_with_one_line(
    words: list[str],
    message: str,
    store: ImageStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(IMAGES_VARIABLE, str(store.root))
    assert main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_launcher_is_one_program_that_the_cdk_cli_can_start(tmp_path: Path, store: ImageStore) -> None:
    launcher = write_launcher(tmp_path / "bin" / "docker")
    login = [str(launcher), "login", "--username", "AWS", "--password-stdin", "registry"]
    environment = {"PATH": str(Path(sys.executable).parent), IMAGES_VARIABLE: str(store.root)}
    done = subprocess.run(
        login, input="secret", text=True, env=environment, capture_output=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("flags", "attestations", "kind"),
    [
        (["--output=type=docker,oci-mediatypes=false"], "1", "vnd.docker.distribution.manifest.v2"),
        ([], "1", "vnd.oci.image.manifest.v1"),
        (["--output=type=docker"], "1", "vnd.oci.image.manifest.v1"),
        ([], "", "vnd.oci.image.index.v1"),
    ],
    ids=["as the asset asks", "without the flag", "without the media types", "with attestations"],
)
def test_a_push_gives_ecr_the_manifest_that_docker_would(
    flags: list[str],
    attestations: str,
    kind: str,
    context: Path,
    store: ImageStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        IMAGES_VARIABLE: str(store.root),
        "BUILDX_NO_DEFAULT_ATTESTATIONS": attestations,
        "AWS_ENDPOINT_URL": "https://api.ecr.us-east-1.amazonaws.com",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/assets:0123"
    with mock_aws():
        ecr = boto3.client("ecr", region_name="us-east-1")
        ecr.create_repository(repositoryName="assets")
        assert main(["build", "--build-arg", "ENGINE=xgboost", "--tag", "local", *flags, str(context)]) == 0
        assert main(["tag", "local", uri]) == 0
        assert main(["push", uri]) == 0
        assert main(["push", uri]) == 0, "a second push changes nothing"
        [image] = ecr.batch_get_image(repositoryName="assets", imageIds=[{"imageTag": "0123"}])["images"]
    assert json.loads(image["imageManifest"])["mediaType"] == f"application/{kind}+json"
