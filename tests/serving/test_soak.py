"""Minutes of mixed traffic, good and bad: memory stays flat, every answer is right. Run with `-m soak`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from support.model_server import ARTIFACTS, ModelServer, predictions

SECONDS = float(os.environ.get("SOAK_SECONDS", "180"))
ROWS = np.load(ARTIFACTS / "digits-onnx" / "holdout.npy").tolist()
EXPECTED = np.array(predictions("digits-onnx"))
MANY = 1 + 1_000_000 // len(json.dumps(ROWS))
JSON = {"content-type": "application/json"}


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_memory_stays_flat_under_minutes_of_mixed_traffic(start: Callable[..., ModelServer]) -> None:
    server = start(ARTIFACTS / "digits-onnx", workers=1)
    [worker] = server.workers
    sizes: list[int] = []
    wrong = unexpected = answered = 0

    async def ask(client: httpx.AsyncClient, i: int) -> None:
        nonlocal wrong, unexpected, answered
        row = i % len(ROWS)
        body, status = json.dumps({"instances": [ROWS[row]]}), 200
        headers = JSON | {"x-request-id": f"soak-{i}"} if i % 3 else JSON
        if i % 640 in (5, 6):  # a megabyte, which is read on a thread
            body, row = json.dumps({"instances": ROWS * MANY}), -1
            if i % 640 == 6:
                body, status = body[:-3] + ", 1]]}", 422
        elif i % 10 == 1:
            body, status = body[:-4], 400
        elif i % 10 == 2:
            body, status = json.dumps({"instances": [[i]]}), 422
        elif i % 10 == 3:
            headers, status = {"content-type": f"text/x-{i}"}, 415
        elif i % 10 == 4:
            body, row = json.dumps({"instances": ROWS}), -1
        answer = await client.post("/invocations", content=body, headers=headers)
        answered += 1
        unexpected += answer.status_code != status
        if answer.status_code == 200:
            times = len(answer.json()["predictions"]) // len(EXPECTED)
            expected = np.tile(EXPECTED, (times, 1)) if row == -1 else EXPECTED[row : row + 1]
            wrong += not np.allclose(answer.json()["predictions"], expected, rtol=1e-5, atol=1e-8)

    async def leave() -> None:
        """Clients that go in the middle of a small request and of a large one."""
        for size in (1_000, 1_000_000):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
            writer.write(b" " * (size // 2))
            await writer.drain()
            writer.close()

    async def run() -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            i = 0
            while time.monotonic() - began < SECONDS:
                await asyncio.gather(*(ask(client, i + k) for k in range(32)))
                i += 32
                if i % 320 == 0:
                    await leave()
                    sizes.append(worker.memory_info().rss)

    asyncio.run(run())
    assert (wrong, unexpected) == (0, 0)
    assert answered > 100
    settled = sizes[len(sizes) // 4 :]
    assert max(settled[-10:]) - min(settled[:10]) < 8 * 1024 * 1024, sizes
