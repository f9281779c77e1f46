"""A copy of the product's folders, into which tests drop files as a contributor would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
FOLDERS = ("lambda", "modelstacks", "serving", "stacks")


def copy_product(folder: Path) -> Path:
    """The toolkit, the stacks, the functions and the model server, without what a run leaves behind."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "app.py", folder)
    return folder


def run(product: Path, *words: str, **variables: str) -> str:
    """What Python prints that runs with these arguments and imports the copy in place of the checkout."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=product,
        env=os.environ | {"PYTHONPATH": f"{product}{os.pathsep}{ROOT / 'tests'}"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout
