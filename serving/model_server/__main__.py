"""`python -m model_server serve` and `python -m model_server inspect DIR`."""

from __future__ import annotations

import gc

# Until the model is loaded (worker.settle): imports create no garbage, and neither does the supervisor.
gc.disable()

# ruff: noqa: E402
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from model_server import __version__
from model_server.logs import event, set_up
from model_server.problems import ModelRefusedError, ProblemError, SignatureNeededError
from model_server.settings import settings_from_environment

OUT_OF_MEMORY = 12  # ENOMEM: an exit code of its own, since the model may be fine on a larger machine


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["serve"]:  # every container starts so: without the time to import the parser
        return _serve()
    import argparse

    parser = argparse.ArgumentParser("python -m model_server", description="Serves one model over HTTP.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the model that MODEL_SERVER_* describes")
    inspect = commands.add_parser("inspect", help="load a model, try it once, and print what it is as JSON")
    inspect.add_argument("directory", type=Path)
    chosen = parser.parse_args(arguments)
    return _inspect(chosen.directory) if chosen.command == "inspect" else _serve()


def _serve() -> int:
    set_up("info")
    try:
        settings = settings_from_environment(os.environ)
        set_up(settings.log_level)
        from model_server import supervisor

        return supervisor.run(settings)
    except ModelRefusedError as error:
        event(logging.ERROR, str(error))
        return 78


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether a MemoryError is among the causes of an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def _inspect(directory: Path) -> int:
    set_up("error", descriptor=2)
    from model_server.engines import choose, saved_with
    from model_server.worker import load_engine

    try:
        settings = settings_from_environment({"MODEL_SERVER_MODEL_NAME": "model"} | dict(os.environ))
        engine, _ = load_engine(directory, replace(settings, model_dir=directory))
        saved = saved_with(choose(directory, engine.name), directory)
    except ModelRefusedError as error:
        if isinstance(error, SignatureNeededError):
            sys.stdout.write(json.dumps({"skeleton": error.skeleton}) + "\n")
        sys.stderr.write(f"{error}\n")
        return OUT_OF_MEMORY if _lacked_memory(error) else 1
    except MemoryError:
        sys.stderr.write(f"the model in {directory} cannot be loaded: no more memory could be had\n")
        return OUT_OF_MEMORY
    except (Exception, ProblemError) as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        sys.stderr.write(f"the model in {directory} cannot be loaded: {type(error).__name__}: {reason}\n")
        return 1
    found = {
        "engine": engine.name,
        "framework": engine.framework,
        "framework_version": engine.framework_version,
        "saved_with": saved.version if saved else None,
        "task": engine.task,
        "signature": engine.signature.to_json(),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
