"""Dockerfiles: what is performed, what is passed over, what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstacks.adapters.dockerfile import read
from modelstacks.core.errors import UsageError

SERVING = Path(__file__).parents[2] / "serving"

IMAGE = """\
ARG BASE=python:3.13
FROM ${BASE} AS build
ARG ENGINE=onnx
COPY install.sh ./
COPY model_server/ model_server/
RUN TORCH="${TORCH}" sh install.sh /opt/server "${ENGINE}"

FROM ${BASE}
# the operating system
RUN apt-get update \\
    && useradd --uid 1000 server
COPY --from=build /opt/server /opt/server
ENV PATH=/opt/server/venv/bin:$PATH \\
    HOME=/tmp
USER 1000
EXPOSE 8080/tcp
ENTRYPOINT ["python", "-m", "model_server"]
CMD ["serve"]
"""


def test_an_image_is_its_installation_and_how_it_starts() -> None:
    recipe = read(IMAGE, {"ENGINE": "xgboost"})
    assert recipe.installation.script == "install.sh"
    assert recipe.installation.prefix == "/opt/server"
    assert recipe.installation.arguments == ("xgboost",)
    assert recipe.installation.environment == {"TORCH": ""}
    assert recipe.copied == ("install.sh", "model_server/")
    assert (recipe.entrypoint, recipe.cmd) == (("python", "-m", "model_server"), ("serve",))
    assert recipe.exposed_port == 8080
    assert recipe.user == "1000"
    assert recipe.env["HOME"] == "/tmp"
    assert recipe.env["PATH"].startswith("/opt/server/venv/bin:/usr/local/sbin:")


def test_the_user_is_the_last_stage_s_own() -> None:
    assert read(IMAGE.replace("USER 1000\n", ""), {}).user == ""
    assert read(f"FROM debian\nUSER 1000\n{IMAGE}".replace("\nUSER 1000\nEXPOSE", "\nEXPOSE"), {}).user == ""
    assert read(f"{IMAGE}USER root\n", {}).user == "root"


def test_an_argument_that_is_not_given_has_its_default() -> None:
    assert read(IMAGE, {}).installation.arguments == ("onnx",)


def test_the_project_s_own_image_can_be_performed() -> None:
    recipe = read((SERVING / "Dockerfile").read_text(), {"ENGINE": "sklearn"})
    assert recipe.installation.arguments == ("sklearn",)
    assert recipe.exposed_port == 8080
    assert recipe.entrypoint == ("python", "-m", "model_server")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN make install", r"Dockerfile:19: `make` cannot be performed without Docker"),
        ("RUN apt-get update && curl x", r"`curl` cannot be performed"),
        ("RUN sh install.sh /opt/other more", "a second installation cannot be performed"),
        ("ADD https://example.com/x /x", "ADD cannot be performed"),
        ("ONBUILD RUN x", "ONBUILD cannot be performed"),
        ("CMD serve", "only the exec form"),
        ("ENTRYPOINT python -m model_server", "only the exec form"),
    ],
)
def test_what_cannot_be_performed_is_refused_by_name_and_line(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(IMAGE + line + "\n", {})


def test_an_image_that_installs_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing installs the image's programs"):
        read('FROM python\nCMD ["python"]\n', {})
