"""Signals that arrive while a worker is being started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.model_server import ARTIFACTS, ROOT, free_port, wait_for

# The child of a fork is slow to begin, as on a busy machine.
SLOW_FORK = """
import os, sys, time
from model_server import __main__
fork = os.fork
def slow():
    pid = fork()
    if pid == 0:
        print("forked", flush=True)
        time.sleep(1.5)
    return pid
os.fork = slow
sys.argv = ["model_server", "serve"]
sys.exit(__main__.main())
"""


def test_sigterm_reaches_a_worker_that_has_just_been_forked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "serving"),
        "MODEL_SERVER_MODEL_NAME": "digits",
        "MODEL_SERVER_MODEL_DIR": str(ARTIFACTS / "digits-onnx"),
        "MODEL_SERVER_HOST": "127.0.0.1",
        "MODEL_SERVER_PORT": str(free_port()),
        "MODEL_SERVER_WORKERS": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW_FORK], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        wait_for(lambda: "forked" in log.read_text(encoding="utf-8"), 60, lambda: log.read_text("utf-8"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    finally:
        if process.poll() is None:
            process.kill()
