"""The ModelInspector port: `python -m model_server inspect` in an environment that has the engine.

A model is a stranger's file. The process that loads it runs in the sandbox: it sees the interpreter, its
packages and the model, all of them read-only, and an empty folder; it has no network, cannot start other
processes, and ends within its limits. Its interpreter is isolated (-I): neither the model's folder nor an
environment variable adds to what can be imported.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from modelstacks.adapters.sandbox import (
    Ended,
    Limits,
    Policy,
    Sandbox,
    interpreter_paths,
    machine_memory,
    package_paths,
    run,
)
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError
from modelstacks.core.ports import Inspection
from modelstacks.core.signature import Signature

__all__ = ["ModelServerInspector", "default_limits"]

# Exit codes of `python -m model_server inspect` (serving/model_server/__main__.py).
_REFUSED, _OUT_OF_MEMORY = 1, 12
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9A-Za-z+]{1,16}){1,4}")
_SMALLER = "serve a smaller model; a model file that was altered can {}"


def default_limits(timeout: float) -> Limits:
    """What loading a model may use. The processor time is that of all threads together."""
    return Limits(
        memory=machine_memory(),
        cpu_seconds=int(timeout * min(os.cpu_count() or 1, 4)) + 1,
        file_bytes=256 << 20,
        open_files=1024,
    )


class ModelServerInspector:
    """Asks the model server what a model is.

    Args:
        python: the serving image's build arguments -> the interpreter of an environment made with them.
        sandbox: what the model is loaded in; opened when it is first needed.
        timeout: seconds that loading and one prediction may take.
        limits: what the process may use up.
    """

    def __init__(
        self,
        python: Callable[[Mapping[str, str]], Path],
        sandbox: Callable[[], Sandbox],
        *,
        timeout: float = 600,
        limits: Limits | None = None,
    ) -> None:
        self._python, self._sandbox, self._timeout = python, sandbox, timeout
        self._limits = limits or default_limits(timeout)

    def inspect(
        self, directory: Path, engine: str, *, image: Mapping[str, str], trust_code: bool
    ) -> Inspection:
        python = self._python(image)
        model = directory.resolve()
        with tempfile.TemporaryDirectory(prefix="modelstacks-inspect-") as folder:
            scratch = Path(folder).resolve()
            ended = run(
                self._sandbox(),
                Policy(
                    readable=(*interpreter_paths(python), *package_paths(python), model),
                    scratch=scratch,
                    limits=self._limits,
                ),
                [str(python), "-I", "-B", "-X", "utf8", "-m", "model_server", "inspect", str(model)],
                _environment(engine, scratch, trust_code=trust_code),
                scratch,
                timeout=self._timeout,
            )
        self._refuse(ended, engine)
        return _inspection(ended, engine)

    def _refuse(self, ended: Ended, engine: str) -> None:
        """Raise UsageError where the model is to blame."""
        limits = self._limits
        if ended.timed_out:
            raise UsageError(
                f"the {engine} engine did not load the model in {self._timeout:.0f} s",
                allowed=f"{self._timeout:.0f} s for loading it and one prediction",
                fix=_SMALLER.format("keep its library busy for ever"),
            )
        if ended.signal == signal.SIGXCPU:
            raise UsageError(
                f"the {engine} engine used up its processor time while it loaded the model",
                allowed=f"{limits.cpu_seconds} s of all threads together",
                fix=_SMALLER.format("keep its library busy for ever"),
            )
        if ended.code == _OUT_OF_MEMORY or ended.signal == signal.SIGKILL:
            raise UsageError(
                f"the {engine} engine ran out of memory while it loaded the model",
                got=ended.last_line,
                allowed=f"{(limits.memory or 0) / (1 << 30):.1f} GiB",
                fix="lock it on a machine with more memory, or " + _SMALLER.format("ask for any amount"),
            )
        if ended.code == _REFUSED:
            reason = ended.last_line or "it gave no reason"
            what = f"the {engine} engine cannot load the model: {reason}"
            skeleton = _skeleton(ended.output)
            raise UsageError(what) if skeleton is None else SignatureNeeded(what, skeleton)


def _environment(engine: str, scratch: Path, *, trust_code: bool) -> dict[str, str]:
    """All that the process gets: made from nothing."""
    return {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "USER": "model",
        "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "MODEL_SERVER_ENGINE": engine,
        "MODEL_SERVER_TRUST_CODE": str(trust_code).lower(),
    }


def _inspection(ended: Ended, engine: str) -> Inspection:
    try:
        if ended.code != 0:
            how = f"killed by {ended.signal.name}" if ended.signal else f"exit status {ended.code}"
            raise ValueError(f"{how}: {ended.last_line}" if ended.last_line else how)
        said = json.loads(ended.output)
        return Inspection(
            engine=said["engine"],
            framework=said["framework"],
            framework_version=said["framework_version"],
            task=said["task"],
            signature=Signature.model_validate(said["signature"]),
            saved_with=_version(said.get("saved_with")),
        )
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        why = ended.last_line if ended.code == 0 and ended.last_line else str(error).splitlines()[0]
        raise EnvironmentFault(f"the {engine} engine died while it loaded the model: {why}") from None


def _version(said: object) -> str | None:
    """A version that may stand in a message: a hostile model can print any text."""
    return said if isinstance(said, str) and _VERSION.fullmatch(said) else None


def _skeleton(said: str) -> dict[str, object] | None:
    """The signature to correct that the model server printed, if it printed one."""
    try:
        skeleton = json.loads(said)["skeleton"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return skeleton if isinstance(skeleton, dict) else None
