"""Serving images without Docker: each a folder with a Python environment, kept by the digest of what made it.

    .modelstacks/images/<digest>/            what `RUN sh install.sh PREFIX ENGINE` installed, below the
    image's own paths
    .modelstacks/images/<digest>/image.json  written last: a folder without it is a build that never ended
    .modelstacks/images/tags.json            image names -> digests
    .modelstacks/images/manifests.json       image names -> media types of their manifests

`modelstacks lock` inspects models in these environments; the stand-in for Docker builds them; the data
plane runs them.
The interpreter is this machine's own, not the one that the image's FROM names: docs/verified.md says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelstacks.adapters.dockerfile import Recipe, read
from modelstacks.core.errors import EnvironmentFault, UsageError

__all__ = ["ImageEnvironment", "ImageStore", "serving_python"]

# Accounts whose registries hold AWS's own images: there is nothing to build them from.
_AWS_IMAGE = re.compile(
    r"^(?:public\.ecr\.aws/|(?:763104351884|683313688378|246618743249|007439368137)\.dkr\.ecr\.)"
)
_LEFT_OUT = frozenset({"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
_INSTALL_SECONDS = 1800
_FULL_BYTES = 1 << 20  # with less than this left, an installation failed for want of space


@dataclass(frozen=True, slots=True)
class ImageEnvironment:
    """An image as a folder. Programs of `entrypoint` are looked for beside `python`."""

    digest: str  # 64 hex digits
    root: Path  # stands for the image's /
    python: Path
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: Mapping[str, str]  # ENV, with the image's own folders found below `root`
    exposed_port: int | None
    user: str = ""  # USER; "" is root


class ImageStore:
    """The images of one project. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._tags = self.root / "tags.json"
        self._manifests = self.root / "manifests.json"

    def build(
        self,
        context: Path,
        arguments: Mapping[str, str],
        *,
        dockerfile: Path | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> ImageEnvironment:
        """Perform a Dockerfile's installation, once for each set of inputs. Returns at once when it is there.

        Raises UsageError for a Dockerfile that cannot be performed, EnvironmentFault when the installation
        fails.
        """
        file = dockerfile or context / "Dockerfile"
        try:
            text = file.read_text()
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from None
        recipe = read(text, arguments, file.name)
        digest = _digest(context, text, recipe)
        image = self.root / digest
        if not (image / "image.json").exists():
            with self._locked(digest):
                if not (image / "image.json").exists():  # somebody else may have built it while we waited
                    note(f"installing {' '.join(recipe.installation.arguments)}")
                    self._install(context, recipe, image)
        return self._read(digest)

    def tag(self, image: str, name: str, *, manifest: str = "") -> None:
        """Give an image (a digest, or another name of it) one more name.

        `manifest` is the media type of the manifest that it would be pushed with; another name has its own.
        """
        with self._locked("tags"):
            tags, manifests = self._read_tags(), self._read_names(self._manifests)
            digest = tags.get(image, image)
            if not self._present(digest):
                raise UsageError(f"no such image: {image}")
            self._write(self._tags, {**tags, name: digest})
            self._write(self._manifests, {**manifests, name: manifest or manifests.get(image, "")})

    def manifest(self, name: str) -> str:
        """The media type of the manifest behind a name; empty where it was not recorded."""
        return self._read_names(self._manifests).get(name, "")

    def resolve(self, name: str) -> ImageEnvironment:
        """The image behind a name: an ECR URI, a local tag, or a digest.

        Raises EnvironmentFault where there is none.
        """
        if _AWS_IMAGE.match(name):
            raise EnvironmentFault(
                "an image that AWS publishes cannot be run without Docker",
                got=name,
                allowed="images built from this project's serving/",
                fix="deploy it into AWS",
            )
        digest = self._read_tags().get(name, name)
        if not self._present(digest):
            raise EnvironmentFault(f"the image {name} has not been built here", fix="modelstacks up")
        return self._read(digest)

    def _present(self, digest: str) -> bool:
        return bool(re.fullmatch(r"[0-9a-f]{64}", digest)) and (self.root / digest / "image.json").exists()

    def _read(self, digest: str) -> ImageEnvironment:
        root = self.root / digest
        facts = json.loads((root / "image.json").read_text())
        return ImageEnvironment(
            digest=digest,
            root=root,
            python=root / facts["python"],
            entrypoint=tuple(facts["entrypoint"]),
            cmd=tuple(facts["cmd"]),
            env=facts["env"],
            exposed_port=facts["exposed_port"],
            user=facts.get("user", ""),
        )

    def _install(self, context: Path, recipe: Recipe, image: Path) -> None:
        """Install in the final folder, since a virtual environment cannot be moved.

        The image counts as built once image.json is there.
        """
        shutil.rmtree(image, ignore_errors=True)
        prefix = image / recipe.installation.prefix.lstrip("/")
        done = _run(context, recipe, prefix)
        if done.returncode:
            fault = self._failed(recipe, done, shutil.disk_usage(image).free)
            shutil.rmtree(image, ignore_errors=True)
            raise fault
        here = str(prefix)
        env = {name: value.replace(recipe.installation.prefix, here) for name, value in recipe.env.items()}
        facts = {
            "python": str((prefix / "venv/bin/python").relative_to(image)),
            "entrypoint": recipe.entrypoint,
            "cmd": recipe.cmd,
            "env": env,
            "exposed_port": recipe.exposed_port,
            "user": recipe.user,
        }
        self._write(image / "image.json", facts)

    def _failed(self, recipe: Recipe, done: subprocess.CompletedProcess[str], free: int) -> EnvironmentFault:
        """Why the script did not install the image: the end of its output, or a full disk."""
        if free < _FULL_BYTES:
            return EnvironmentFault(
                f"the disk is full: the serving image cannot be installed in {self.root}",
                fix="free a GiB, then run the command again",
            )
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        return EnvironmentFault(
            f"{recipe.installation.script} {' '.join(recipe.installation.arguments)} "
            f"ended with exit code {done.returncode}",
            got=" / ".join(said) or "no message",
        )

    def _read_tags(self) -> dict[str, str]:
        return self._read_names(self._tags)

    @staticmethod
    def _read_names(path: Path) -> dict[str, str]:
        try:
            names: dict[str, str] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise EnvironmentFault(f"{path} is damaged", fix=f"delete it: rm {path}") from None
        return names

    @staticmethod
    def _write(path: Path, content: object) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1))
        new.replace(path)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise EnvironmentFault(f"{self.root} cannot be written to: {error.strerror}") from None


# What an installation may see of this process's environment: where to find packages, and how to reach them.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "XDG_CACHE_HOME",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CONFIG_FILE",
    "PIP_FIND_LINKS",
    "PIP_CERT",
    "PIP_TRUSTED_HOST",
    "PIP_CACHE_DIR",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_CONFIG_FILE",
    "UV_CACHE_DIR",
    "UV_LINK_MODE",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_OFFLINE",
)


def serving_python(store: ImageStore, serving: Path, arguments: Mapping[str, str]) -> Path:
    """The interpreter of the serving image with these build arguments, which is built if it is not there.

    `modelstacks lock` inspects models with it.
    """
    return store.build(serving, arguments).python


def _run(context: Path, recipe: Recipe, prefix: Path) -> subprocess.CompletedProcess[str]:
    """Run the script that the Dockerfile runs, in an environment of its own."""
    environment = {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "",
        **_uv(),
        **recipe.installation.environment,
    }
    try:
        prefix.mkdir(parents=True)
        return subprocess.run(
            ["sh", recipe.installation.script, str(prefix), *recipe.installation.arguments],
            cwd=context,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"the serving image cannot be installed: {error}") from None


def _uv() -> dict[str, str]:
    """uv, where it came with this interpreter's packages or is on PATH: ten times faster than pip."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    return {"UV": found} if found else {}


def _digest(context: Path, dockerfile: str, recipe: Recipe) -> str:
    """The sha256 of all that the image is made from: recipe, copied files, interpreter, machine."""
    digest = hashlib.sha256()
    for part in (dockerfile, repr(recipe), sys.version, platform.machine()):
        digest.update(part.encode() + b"\0")
    for file in sorted(set(_files(context, recipe))):
        digest.update(str(file.relative_to(context)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(context: Path, recipe: Recipe) -> Iterator[Path]:
    for name in recipe.copied:
        source = context / name
        if not source.exists():
            raise UsageError(f"COPY {name}: there is no such file in {context}")
        for file in [source] if source.is_file() else source.rglob("*"):
            inside = file.relative_to(context).parts
            if file.is_file() and not _LEFT_OUT.intersection(inside) and file.suffix != ".pyc":
                yield file
