"""Runs podman as the CDK CLI runs docker: `python -m modelstacks.adapters.podman_for_cdk PODMAN ...`.

Only `build` differs: podman refuses `--output=type=docker,...`, and gives an image an OCI manifest, which
SageMaker refuses, unless it is built with `--format docker`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["translate"]


def translate(words: Sequence[str]) -> list[str]:
    """Return podman's arguments for arguments of docker."""
    if not words or words[0] != "build":
        return list(words)
    translated = ["build", "--format", "docker"]
    rest = iter(words[1:])
    for word in rest:
        option, _, value = word.partition("=")
        if option not in ("--output", "-o"):
            translated.append(word)
            continue
        value = value or next(rest, "")
        # A build without --output stores the image under its tag, which is what type=docker asks for.
        if not value.startswith("type=docker"):
            translated += ["--output", value]
    return translated


def main(arguments: Sequence[str]) -> None:
    """Replace this process by podman."""
    podman, *words = arguments
    os.execv(podman, [podman, *translate(words)])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
