"""A stand-in for `docker` that runs the CDK CLI's docker commands (CDK_DOCKER) without an engine.

The CDK CLI runs login, inspect, build, tag and push. Each image becomes a folder of .modelstacks/images/,
which MODELSTACKS_IMAGES names and where the embedded cloud looks for images. `push` puts the image's manifest
into ECR.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from modelstacks.adapters.serving_environment import ImageEnvironment, ImageStore
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ECR = re.compile(r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[^:]+):(?P<tag>[^:/]+)")

__all__ = ["IMAGES_VARIABLE", "main", "resolve", "write_launcher"]

IMAGES_VARIABLE = "MODELSTACKS_IMAGES"


def resolve(image: str, images: Path) -> ImageEnvironment:
    """The environment of the container image that a task or model definition names by its URI.

    `images` is the project's .modelstacks/images. Raises EnvironmentFault for an image that was not built
    here, such as AWS's own images.
    """
    return ImageStore(images).resolve(image)


def write_launcher(path: Path) -> Path:
    """Write the program that CDK_DOCKER names, which must be a path without arguments."""
    here = Path(__file__).resolve().parents[3]
    text = (
        f'#!/bin/sh\nPYTHONPATH="{here}" exec "{sys.executable}" -P -m modelstacks.cloud.host.docker "$@"\n'
    )
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one docker command. Messages go to stderr; the exit code is 0 or 1, as docker's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _perform(words)
    except ModelstacksError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _perform(words: Sequence[str]) -> int:
    command, rest = (words[0], list(words[1:])) if words else ("", [])
    store = ImageStore(_images())
    match command:
        case "login" | "logout":
            if "--password-stdin" in rest:
                sys.stdin.read()
            return 0
        case "build":
            return _build(store, rest)
        case "buildx" if rest[:1] == ["build"]:
            return _build(store, rest[1:])
        case "tag" if len(rest) == 2:
            store.tag(rest[0], rest[1])
            return 0
        case "push" if rest:
            _push(store, rest[-1])
            return 0
        case "inspect" | "pull" if rest:
            try:
                image = store.resolve(rest[-1])
            except EnvironmentFault:
                if command != "inspect":
                    raise
                return 1
            if command == "inspect":
                sys.stdout.write(f'[{{"Id": "sha256:{image.digest}"}}]\n')
            return 0
        case "info" | "version":
            sys.stdout.write("the embedded cloud's stand-in for docker: images are installed as folders\n")
            return 0
    raise UsageError(
        f"the stand-in for docker does not know `docker {command}`",
        allowed="login, build, tag, inspect, push",
        fix="install Docker, and unset CDK_DOCKER",
    )


def _images() -> Path:
    if not os.environ.get(IMAGES_VARIABLE):
        raise EnvironmentFault(f"{IMAGES_VARIABLE} is not set", fix='eval "$(modelstacks env)"')
    return Path(os.environ[IMAGES_VARIABLE])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"docker build: {message}")


def _build(store: ImageStore, rest: Sequence[str]) -> int:
    parser = _Parser(prog="docker build", add_help=False, allow_abbrev=False)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--file", "-f", type=Path)
    parser.add_argument("--tag", "-t", action="append", default=[])
    # Most have no effect: the machine is the platform, and there are no layers to cache.
    for option in ("--platform", "--cache-from", "--cache-to", "--output", "--provenance", "--progress"):
        parser.add_argument(option, action="append")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("context", type=Path)
    given, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(f"docker build: {unknown[0]} cannot be performed without Docker")
    arguments = dict(part.partition("=")[::2] for part in given.build_arg)
    dockerfile = given.context / given.file if given.file else None
    image = store.build(given.context, arguments, dockerfile=dockerfile, note=_say)
    for name in given.tag:
        store.tag(image.digest, name, manifest=_media_type(given.output or []))
    _say(f"sha256:{image.digest}")
    return 0


def _media_type(outputs: Sequence[str]) -> str:
    """The manifest type that BuildKit gives an image with Docker's default, containerd's image store.

    The CDK CLI disables attestations, which would need an index of manifests.
    """
    fields = {field.partition("=")[0]: field.partition("=")[2] for one in outputs for field in one.split(",")}
    if fields.get("oci-mediatypes") == "false":
        return DOCKER_MANIFEST
    attested = os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS", "") not in ("1", "true")
    return OCI_INDEX if attested else OCI_MANIFEST


def _push(store: ImageStore, name: str) -> None:
    """Put the image's manifest into ECR, as a push to a registry does. There are no layers to upload."""
    image = store.resolve(name)
    place = ECR.match(name)
    # Without ECR there is no registry to push to; the image is available here by its name.
    if place is None or not os.environ.get("AWS_ENDPOINT_URL"):
        return
    kind = store.manifest(name) or OCI_MANIFEST
    part = "docker.container.image" if kind == DOCKER_MANIFEST else "oci.image.config"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": f"application/vnd.{part}.v1+json",
            "size": 2,
            "digest": f"sha256:{image.digest}",
        },
        "layers": [],
    }
    # Only a push needs boto3, and importing it takes half a second.
    import boto3

    ecr = boto3.client("ecr", region_name=place["region"])
    with contextlib.suppress(ecr.exceptions.ImageAlreadyExistsException):
        ecr.put_image(
            repositoryName=place["repository"],
            imageTag=place["tag"],
            imageManifest=json.dumps(manifest, sort_keys=True),
            imageManifestMediaType=kind,
        )


def _say(text: str) -> None:
    """Write to stderr, which the CDK CLI shows as docker's progress."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
