"""Which program builds images for AWS, what is refused before a deploy, and podman in docker's place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelstacks.adapters.image_builder import ImageBuilder, find_image_builder
from modelstacks.adapters.podman_for_cdk import translate
from modelstacks.core.errors import EnvironmentFault

DOCKER = "Docker version 29.1.2, build 890dcca\n"
PODMAN = "podman version 4.3.1\n"


class Engine:
    """Answers a command line: `--version` as told, everything else with success unless it is told to fail."""

    def __init__(self, version: str, **fails: str) -> None:
        self.version, self.fails = version, fails

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[1] == "--version":
            return 0, self.version
        return (1, self.fails[command[1]]) if command[1] in self.fails else (0, "fine")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def install(path: Path, *names: str) -> dict[str, str]:
    for name in names:
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(0o755)
    return {"PATH": str(path)}


def test_docker_with_buildx_builds_with_buildkit(path: Path) -> None:
    builder = find_image_builder(install(path, "docker", "podman"), Engine(DOCKER))
    assert builder == ImageBuilder(f"{path}/docker", "docker", "29.1.2")
    assert builder.environment(path) == {"CDK_DOCKER": f"{path}/docker", "DOCKER_BUILDKIT": "1"}


def test_the_classic_builder_is_refused_before_it_meets_a_flag_it_does_not_know(path: Path) -> None:
    engine = Engine("Docker version 20.10.24+dfsg1, build 297e128", buildx="'buildx' is not a docker command")
    with pytest.raises(EnvironmentFault, match="does not know `--output`") as refused:
        find_image_builder(install(path, "docker"), engine)
    assert refused.value.got == f"docker 20.10.24+dfsg1 ({path}/docker) without the buildx plugin"
    assert "docker-buildx" in refused.value.fix


def test_a_variable_that_selects_the_classic_builder_is_refused(path: Path) -> None:
    environment = {**install(path, "docker"), "DOCKER_BUILDKIT": "0"}
    with pytest.raises(EnvironmentFault, match="fix: unset DOCKER_BUILDKIT"):
        find_image_builder(environment, Engine(DOCKER))


def test_podman_is_taken_where_there_is_no_docker(path: Path) -> None:
    assert find_image_builder(install(path, "podman"), Engine(PODMAN)).kind == "podman"


def test_podman_under_dockers_name_is_podman(path: Path) -> None:
    assert find_image_builder(install(path, "docker"), Engine(PODMAN)).kind == "podman"


@pytest.mark.parametrize(
    ("version", "kind"),
    [("finch version v1.8.2", "finch"), ("nerdctl version 2.0.3", "nerdctl"), ("my wrapper", "unknown")],
)
def test_other_engines_are_left_to_the_check_in_the_account(path: Path, version: str, kind: str) -> None:
    environment = {**install(path, "engine"), "CDK_DOCKER": "engine"}
    builder = find_image_builder(environment, Engine(version))
    assert builder.kind == kind
    assert builder.environment(path) == {"CDK_DOCKER": f"{path}/engine"}


def test_buildah_cannot_take_dockers_place(path: Path) -> None:
    environment = {**install(path, "buildah"), "CDK_DOCKER": "buildah"}
    with pytest.raises(EnvironmentFault, match="cannot build with buildah"):
        find_image_builder(environment, Engine("buildah version 1.28.2 (image-spec 1.1.0-rc2)"))


def test_an_engine_that_does_not_answer_is_named_with_its_last_line(path: Path) -> None:
    engine = Engine(DOCKER, info="Client:\nCannot connect to the Docker daemon\n")
    with pytest.raises(EnvironmentFault, match="does not answer; got Cannot connect to the Docker daemon"):
        find_image_builder(install(path, "docker"), engine)


def test_a_machine_without_any_engine_is_told_what_to_install(path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no program to build container images with; got no docker"):
        find_image_builder({"PATH": str(path)}, Engine(""))
    with pytest.raises(EnvironmentFault, match="CDK_DOCKER is nope, which does not exist"):
        find_image_builder({**install(path, "docker"), "CDK_DOCKER": "nope"}, Engine(DOCKER))


@pytest.mark.parametrize(
    ("words", "translated"),
    [
        (
            ["build", "--output=type=docker,oci-mediatypes=false", "--tag", "cdkasset-1", "."],
            ["build", "--format", "docker", "--tag", "cdkasset-1", "."],
        ),
        (
            ["build", "--output", "type=docker,oci-mediatypes=false", "."],
            ["build", "--format", "docker", "."],
        ),
        (
            ["build", "--output=type=local,dest=out", "."],
            ["build", "--format", "docker", "--output", "type=local,dest=out", "."],
        ),
        (["tag", "cdkasset-1", "registry/a:1"], ["tag", "cdkasset-1", "registry/a:1"]),
        (["login", "--username", "AWS", "--password-stdin", "registry"],) * 2,
    ],
)
def test_only_a_build_is_translated_for_podman(words: list[str], translated: list[str]) -> None:
    assert translate(words) == translated


def test_the_launcher_runs_podman_with_the_translated_arguments(path: Path, tmp_path: Path) -> None:
    podman = path / "podman"
    podman.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/told; exit 3\n')
    podman.chmod(0o755)
    variables = ImageBuilder(str(podman), "podman", "4.3.1").environment(tmp_path / "state")
    done = subprocess.run(
        [variables["CDK_DOCKER"], "build", "--output=type=docker", "a b"], env=dict(os.environ), check=False
    )
    assert done.returncode == 3
    assert (tmp_path / "told").read_text().splitlines() == ["build", "--format", "docker", "a b"]


def test_every_assets_output_is_one_that_the_translation_knows(path: Path) -> None:
    """The stack's --output is dropped for podman because a plain build stores the image under its tag."""
    from modelstacks.cdk.constructs import serving_image

    (output,) = serving_image.OUTPUTS
    assert translate(["build", f"--output={output}", "."]) == ["build", "--format", "docker", "."]
