"""The ModelInspector port: `python -m model_server inspect` in an environment that has the engine.

A model is a stranger's file until it has been loaded once. The process gets no credentials and no network
settings from here: its environment is made from nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from modelstacks.core.contract import image_arguments
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError
from modelstacks.core.ports import Inspection
from modelstacks.core.signature import Signature

__all__ = ["ModelServerInspector"]


class ModelServerInspector:
    """Asks the model server what a model is.

    Args:
        python: the serving image's build arguments -> the interpreter of an environment made with them.
        timeout: seconds that loading and one prediction may take.
    """

    def __init__(self, python: Callable[[Mapping[str, str]], Path], *, timeout: float = 600) -> None:
        self._python, self._timeout = python, timeout

    def inspect(self, directory: Path, engine: str, *, trust_code: bool) -> Inspection:
        environment = {
            "PATH": os.defpath,
            "HOME": str(directory.parent),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "MODEL_SERVER_ENGINE": engine,
            "MODEL_SERVER_TRUST_CODE": str(trust_code).lower(),
        }
        # As the transformers engine has it: ONNX weights where there are any, else PyTorch.
        torch = engine == "transformers" and not any(directory.rglob("model.onnx"))
        python = self._python(image_arguments(engine, torch=torch))
        command = [str(python), "-m", "model_server", "inspect", str(directory.resolve())]
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=directory.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"the {engine} engine did not load the model in {self._timeout:.0f} s") from None
        except OSError as error:
            raise EnvironmentFault(f"{command[0]} cannot be run: {error.strerror}") from None
        if done.returncode == 1:
            reason = done.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
            what = f"the {engine} engine cannot load the model: {reason[0]}"
            skeleton = _skeleton(done.stdout)
            raise UsageError(what) if skeleton is None else SignatureNeeded(what, skeleton)
        try:
            if done.returncode != 0:
                raise ValueError(f"exit status {done.returncode}")
            said = json.loads(done.stdout)
            return Inspection(
                engine=said["engine"],
                framework=said["framework"],
                framework_version=said["framework_version"],
                task=said["task"],
                signature=Signature.model_validate(said["signature"]),
            )
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            last = (done.stderr.strip().splitlines() or [str(error)])[-1]
            raise EnvironmentFault(f"the {engine} engine died while it loaded the model: {last}") from None


def _skeleton(said: str) -> dict[str, object] | None:
    """The signature to correct that the model server printed, if it printed one."""
    try:
        skeleton = json.loads(said)["skeleton"]
    except (ValueError, KeyError, TypeError):
        return None
    return skeleton if isinstance(skeleton, dict) else None
