"""Which CDK CLI a project uses, and how it is installed. npm here is a small program of ours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modelstacks.adapters.cdk_programs import PINNED_CLI, find_cli, find_node, install_cli
from modelstacks.core.errors import EnvironmentFault

ROOT = Path(__file__).resolve().parents[2]

#: Writes down its arguments, and installs what it was asked for.
NPM = """
const fs = require("fs"), path = require("path");
fs.writeFileSync("npm.json", JSON.stringify(process.argv.slice(2)));
if (process.env.NPM_FAILS) { console.error("npm error 404 Not Found"); process.exit(7); }
const folder = path.join("node_modules", "aws-cdk");
fs.mkdirSync(path.join(folder, "bin"), {recursive: true});
fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({name: "aws-cdk", version: "2.1148.1"}));
"""


def installed(package: Path, version: str, name: str = "aws-cdk") -> Path:
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": name, "version": version}))
    program = package / "bin" / "cdk"
    program.write_text("")
    program.chmod(0o755)
    return program


@pytest.fixture
def npm(tmp_path: Path) -> list[str]:
    script = tmp_path / "npm.js"
    script.write_text(NPM)
    return [str(find_node().path), str(script)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def test_the_version_is_the_one_that_package_json_pins() -> None:
    assert json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"] == PINNED_CLI


def test_the_projects_own_cli_comes_before_the_one_on_the_path(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = installed(tmp_path / "global" / "aws-cdk", "2.1150.0")
    monkeypatch.setenv("PATH", str(everywhere.parent))
    assert find_cli(project).version == "2.1150.0"
    own = installed(project / "node_modules" / "aws-cdk", PINNED_CLI)
    assert find_cli(project).path == own


@pytest.mark.parametrize("version", ["3.0.0", "2.1120.0", "1.204.0"])
def test_a_cli_that_cannot_read_the_assembly_is_refused(project: Path, version: str) -> None:
    installed(project / "node_modules" / "aws-cdk", version)
    with pytest.raises(EnvironmentFault, match=re.escape(f"got {version}")) as refused:
        find_cli(project)
    assert refused.value.fix == "modelstacks setup"


def test_another_program_called_cdk_is_not_the_cli(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = installed(tmp_path / "global" / "cdk", "2.1148.1", name="chemistry-development-kit")
    monkeypatch.setenv("PATH", str(other.parent))
    with pytest.raises(EnvironmentFault, match="the CDK CLI is not installed"):
        find_cli(project)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["package.json", "package-lock.json"], ["ci"]),
        (["package.json"], ["install"]),
        ([], ["install", "--save-dev", "--save-exact", f"aws-cdk@{PINNED_CLI}"]),
    ],
)
def test_npm_installs_what_the_project_pins(
    project: Path, npm: list[str], files: list[str], words: list[str]
) -> None:
    for name in files:
        (project / name).write_text((ROOT / name).read_text())
    assert install_cli(project, npm).version == "2.1148.1"
    said = json.loads((project / "npm.json").read_text())
    assert [word for word in said if word not in ("--no-audit", "--no-fund", "--no-progress")] == [
        *words,
        "--loglevel=error",
    ]


def test_a_failed_installation_carries_npms_own_words(
    project: Path, npm: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_FAILS", "1")
    with pytest.raises(
        EnvironmentFault, match="npm install failed with exit code 7: npm error 404 Not Found"
    ):
        install_cli(project, npm)
