"""The program that builds images for a deploy into AWS, and whether SageMaker accepts what it builds.

SageMaker refuses images with an OCI manifest, so the image asset asks for Docker's own manifest with
`docker build --output=type=docker,oci-mediatypes=false`. Docker with buildx obeys that. Podman refuses the
option and writes OCI manifests unless it is told otherwise, so it is run through `podman_for_cdk`. What each
engine did when it was tried is recorded in docs/verified.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelstacks.core.errors import EnvironmentFault

__all__ = ["ImageBuilder", "find_image_builder"]

Kind = Literal["docker", "podman", "finch", "nerdctl", "unknown"]
Run = Callable[[Sequence[str]], tuple[int, str]]

#: What is looked for if CDK_DOCKER is not set, in this order.
PROGRAMS = ("docker", "podman", "finch", "nerdctl")
_VERSION = re.compile(r"(?P<name>[A-Za-z]+)[ ,]+version[ :]+v?(?P<version>\d[\w.+-]*)", re.IGNORECASE)
_SECONDS = 20


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """A program that answers as docker does."""

    program: str
    kind: Kind
    version: str

    def __str__(self) -> str:
        return f"{self.kind} {self.version}".strip() + f" ({self.program})"

    def environment(self, state: Path) -> dict[str, str]:
        """Return the variables with which the CDK CLI builds images that SageMaker accepts.

        Args:
            state: the project's .modelstacks, where the launcher for podman is written.
        """
        if self.kind == "podman":
            return {"CDK_DOCKER": str(_launcher(state / "bin" / "podman-for-cdk", self.program))}
        if self.kind == "docker":
            return {"CDK_DOCKER": self.program, "DOCKER_BUILDKIT": "1"}
        return {"CDK_DOCKER": self.program}


def find_image_builder(environment: Mapping[str, str], run: Run | None = None) -> ImageBuilder:
    """Return the program that will build the images.

    Raises EnvironmentFault if there is none, if it does not answer, or if SageMaker would refuse its images.

    Args:
        run: runs a command line and returns its exit code and output; by default a subprocess.
    """
    run = run or _run
    program = _program(environment)
    code, said = run([program, "--version"])
    found = _VERSION.search(said)
    kind = _kind(found["name"] if found else "", program)
    builder = ImageBuilder(program, kind, found["version"] if found else "")
    if code:
        raise EnvironmentFault(f"{program} cannot be run", got=said.strip()[:200] or f"exit code {code}")
    if Path(program).name == "buildah":
        raise EnvironmentFault(
            "the CDK CLI cannot build with buildah, which does not answer as docker does",
            got=program,
            fix="install podman, which builds with the same library, and unset CDK_DOCKER",
        )
    _refuse_without_buildkit(builder, environment, run)
    code, said = run([program, "info"])
    if code:
        last = (said.strip().splitlines() or ["it gave no reason"])[-1]
        raise EnvironmentFault(f"{builder} does not answer", got=last[:200], fix=f"start {kind}'s service")
    return builder


def _program(environment: Mapping[str, str]) -> str:
    path = environment.get("PATH", os.defpath)
    chosen = environment.get("CDK_DOCKER")
    names = [chosen] if chosen else PROGRAMS
    found = next((place for name in names if (place := shutil.which(name, path=path))), None)
    if found is None:
        raise EnvironmentFault(
            "no program to build container images with",
            got=f"CDK_DOCKER is {chosen}, which does not exist" if chosen else f"no {', '.join(PROGRAMS)}",
            fix="install Docker (with buildx) or podman; `modelstacks up` works without",
        )
    return found


def _kind(name: str, program: str) -> Kind:
    """Return the kind by what `--version` printed: a program called docker may be podman."""
    name = name.lower()
    known: dict[str, Kind] = {"docker": "docker", "podman": "podman", "finch": "finch", "nerdctl": "nerdctl"}
    return known.get(name) or known.get(Path(program).name.lower(), "unknown")


def _refuse_without_buildkit(builder: ImageBuilder, environment: Mapping[str, str], run: Run) -> None:
    if builder.kind != "docker":
        return
    code, _ = run([builder.program, "buildx", "version"])
    if code:
        raise EnvironmentFault(
            "Docker's classic builder does not know `--output`, with which the serving image is built",
            got=f"{builder} without the buildx plugin",
            fix="install the buildx plugin (package docker-buildx-plugin or docker-buildx)",
        )
    if environment.get("DOCKER_BUILDKIT") == "0":
        raise EnvironmentFault(
            "Docker's classic builder does not know `--output`, with which the serving image is built",
            got="DOCKER_BUILDKIT=0, which selects the classic builder",
            fix="unset DOCKER_BUILDKIT",
        )


def _launcher(path: Path, podman: str) -> Path:
    """Write the program that CDK_DOCKER names: it must be one path, without arguments."""
    here = Path(__file__).resolve().parents[2]
    module = "modelstacks.adapters.podman_for_cdk"
    text = f'#!/bin/sh\nPYTHONPATH="{here}" exec "{sys.executable}" -P -m {module} "{podman}" "$@"\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        return 127, (error.strerror or str(error)).lower()
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {_SECONDS} s"
    return done.returncode, done.stdout
