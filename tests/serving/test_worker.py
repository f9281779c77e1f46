"""What a worker does to its own process."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SERVING = Path(__file__).parents[2] / "serving"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory their own way")
def test_a_worker_keeps_freed_memory_for_the_next_large_body() -> None:
    def page_faults(first: str) -> int:
        program = (
            f"{first}\n"
            "import resource\n"
            "for _ in range(50):\n"
            "    body = [bytes(300_000) for _ in range(4)]\n"
            "    del body\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(SERVING)},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    without = page_faults("import model_server.worker")
    kept = page_faults("import model_server.worker as worker; worker.keep_memory()")
    assert without - kept > 2_000  # without it, some hundred pages a round
