"""The exit code of a stop says whether every request was answered."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.model_server import ModelServer, wait_for


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_worker_that_is_killed_while_it_drains_is_an_exit_with_1(
    start: Callable[..., ModelServer], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d): return pathlib.Path(d)\n"
        "def transform_fn(d, body, kind, accept):\n"
        "    (d / 'asked').touch()\n"
        "    while True: time.sleep(0.01)\n",
        encoding="utf-8",
    )
    server = start(tmp_path)
    [worker] = server.workers
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{server.url}/invocations", content="1", timeout=60)
        wait_for((tmp_path / "asked").exists, 30)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: any(line["message"] == "draining" for line in server.log()), 30)
        worker.send_signal(number)
        assert server.process.wait(30) == 1
        with pytest.raises(httpx.TransportError):
            asked.result()
    assert f"killed by {number.name}" in server.log()[-1]["message"]
