"""What cdk.json runs in this checkout; what it accepts with -c is described in stacks/app.py."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent


def main() -> int:
    """Synthesize the stacks that the context asks for; returns the exit code."""
    sys.path.insert(0, str(PROJECT))  # `python app.py` from anywhere
    try:
        from modelstacks.cdk import main as synthesize
    except ModuleNotFoundError as error:
        fix = "run `make setup`, then `. .venv/bin/activate`"
        sys.stderr.write(f"{error.name} is not installed for {sys.executable}; fix: {fix}\n")
        return 4
    return synthesize(PROJECT)


if __name__ == "__main__":
    raise SystemExit(main())
