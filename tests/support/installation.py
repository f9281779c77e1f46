"""The wheel in virtual environments that have nothing of this checkout, and projects beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.cdk import PROJECT

__all__ = ["Installation", "build", "install", "share_tools"]

UV = str(Path(sys.executable).with_name("uv"))


@dataclass(frozen=True)
class Installation:
    """A virtual environment that has the wheel with its extras and nothing of this checkout."""

    environment: Path

    def run(
        self, folder: Path, *command: str, variables: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody would who has activated the environment."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith(("AWS_", "CDK_", "JSII_"))
        }
        path = f"{self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=folder,
            env={**inherited, "PATH": path, "NO_COLOR": "1", **(variables or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def modelstacks(self, folder: Path, *words: str) -> str:
        """Run a modelstacks command that has to succeed; what it printed."""
        done = self.run(folder, "modelstacks", *words)
        assert done.returncode == 0, f"modelstacks {' '.join(words)}: {done.stderr}"
        return done.stdout


def build(source: Path, folder: Path, target: str) -> Path:
    """Build one distribution of `source` with the build backend itself, without an isolated environment."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target", target]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [made] = folder.iterdir()
    return made


def install(wheel: Path, extras: str, environment: Path) -> Installation:
    """Install the wheel into a new environment; packages come from uv's cache where it has them."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    pins = ["--constraint", str(PROJECT / "requirements.txt")]
    wanted = f"modelstacks[{extras}] @ {wheel.as_uri()}"
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *pins, wanted], check=True)
    return Installation(environment)


def share_tools(project: Path) -> None:
    """Give a project this checkout's CDK CLI and installed images, which have their own tests."""
    (project / "node_modules").symlink_to(PROJECT / "node_modules")
    images = PROJECT / ".modelstacks" / "images"
    images.mkdir(parents=True, exist_ok=True)
    (project / ".modelstacks").mkdir(exist_ok=True)
    if not (project / ".modelstacks" / "images").exists():
        (project / ".modelstacks" / "images").symlink_to(images)
