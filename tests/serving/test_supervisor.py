"""Workers: started, killed, started again, drained; with every request counted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from support.model_server import ARTIFACTS, ModelServer, free_port, predictions, wait_for

DIGITS = ARTIFACTS / "digits-onnx"
ROWS = np.load(DIGITS / "holdout.npy").tolist()
EXPECTED = np.array(predictions("digits-onnx"))


@dataclass
class Tally:
    """What clients saw. `lost` is a request that was sent on an open connection and got no answer."""

    answers: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    refused: int = 0  # connections: nothing was sent on them
    extra: int = 0  # bytes beyond the one answer: a request answered twice


def test_a_worker_that_is_loading_leaves_the_clients_to_one_that_is_ready(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d):\n"
        "    d = pathlib.Path(d)\n"
        "    first = not (d / 'loaded').exists()\n"
        "    (d / 'loaded').open('a').write('x')\n"
        "    while not first and not (d / 'go').exists(): time.sleep(0.01)\n"
        "def input_fn(body, kind): return body\n"
        "def predict_fn(data, model): return data\n"
        "def output_fn(prediction, accept): return prediction\n",
        encoding="utf-8",
    )
    server = start(folder, workers=2)
    wait_for(lambda: (folder / "loaded").read_text(encoding="utf-8") == "xx", 30)
    answers = Counter(
        httpx.post(
            f"{server.url}/invocations", content="x", headers={"content-type": "text/plain"}
        ).status_code
        for _ in range(60)
    )
    assert answers == {200: 60}
    (folder / "go").touch()
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 30)


async def client(port: int, index: int, tally: Tally, stop: asyncio.Event) -> None:
    """Asks until told to stop, over one connection as long as it lasts, then over a new one."""
    body = json.dumps({"instances": [ROWS[index]]}).encode()
    request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request += b"content-length: %d\r\n\r\n" % len(body) + body
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            tally.refused += 1
            await asyncio.sleep(0.01)
            continue
        try:
            while not stop.is_set():
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                answer = await reader.readexactly(length)
                status = int(head.split()[1])
                tally.answers[status] += 1
                if status == 200:
                    got = json.loads(answer)["predictions"][0]
                    tally.wrong += not np.allclose(got, EXPECTED[index], rtol=1e-5, atol=1e-8)
                if b"connection: close" in head:
                    tally.extra += len(await reader.read())
                    break
        except (OSError, asyncio.IncompleteReadError):
            tally.lost += 1
        finally:
            writer.close()


def under_load(server: ModelServer, deed: Callable[[], object], clients: int = 16) -> Tally:
    """Clients ask; after 500 answers the deed is done, with them going on; then they stop."""
    tally = Tally()

    async def run() -> None:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(client(server.port, i % len(ROWS), tally, stop)) for i in range(clients)]
        async with asyncio.timeout(60):
            while sum(tally.answers.values()) < 500:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(deed)
            stop.set()
            await asyncio.gather(*tasks)

    asyncio.run(run())
    return tally


def test_sigterm_under_load_loses_no_request_and_exits_with_0(start: Callable[..., ModelServer]) -> None:
    server = start(DIGITS, workers=2)
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)
    codes: list[int] = []
    tally = under_load(server, lambda: codes.append(server.terminate()))
    assert codes == [0]
    assert set(tally.answers) == {200}
    assert (tally.lost, tally.wrong, tally.extra) == (0, 0, 0)
    assert [line["message"] for line in server.log()].count("stopped") == 2


def test_a_killed_worker_is_started_again_and_the_others_answer(start: Callable[..., ModelServer]) -> None:
    server = start(DIGITS, workers=2)
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)

    def kill_one() -> None:
        victim = server.workers[0]
        victim.kill()
        wait_for(lambda: len(server.workers) == 2 and victim.pid not in [w.pid for w in server.workers], 60)
        wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)

    tally = under_load(server, kill_one)
    assert set(tally.answers) <= {200, 503}
    assert tally.answers[503] == 0
    assert tally.lost <= 16  # at most one a connection: what the dead worker held
    assert (tally.wrong, tally.extra, tally.refused) == (0, 0, 0)
    assert server.metric("model_server_worker_restarts_total") == 1
    assert any("killed by SIGKILL" in line["message"] for line in server.log())


def test_a_worker_that_still_loads_leaves_the_answers_to_the_ready_one(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d):\n"
        "    first = pathlib.Path(d) / 'first'\n"
        "    while first.exists() and not (pathlib.Path(d) / 'go').exists(): time.sleep(0.01)\n"
        "    first.touch()\n"
        "def predict_fn(data, model): return data\n",
        encoding="utf-8",
    )
    server = start(tmp_path, workers=2)
    wait_for(lambda: len(server.workers) == 2, 30)

    def ask() -> int:
        return httpx.post(f"{server.url}/invocations", json=[1], timeout=30).status_code

    assert {ask() for _ in range(60)} == {200}
    (tmp_path / "go").touch()
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)
    assert {ask() for _ in range(60)} == {200}


def test_a_lone_worker_is_started_again(start: Callable[..., ModelServer]) -> None:
    server = start(DIGITS, workers=1)
    [worker] = server.workers
    worker.kill()
    wait_for(lambda: [w.pid for w in server.workers] not in ([], [worker.pid]), 30)
    server.wait_until_ready()
    assert httpx.post(f"{server.url}/invocations", json={"instances": ROWS[:1]}).status_code == 200


def test_draining_finishes_what_was_sent_while_ping_says_503(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d): return pathlib.Path(d)\n"
        "def predict_fn(data, d):\n"
        "    (d / 'asked').touch()\n"
        "    while (d / 'hold').exists(): time.sleep(0.01)\n"
        "    return data\n",
        encoding="utf-8",
    )
    (folder / "hold").touch()
    server = start(folder, drain_seconds=20)

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as session, asyncio.timeout(40):
            held = [asyncio.create_task(session.post("/invocations", json=[i])) for i in range(3)]
            while server.metric("model_server_queue_depth") < 2:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            while (await session.get("/ping")).status_code != 503:
                await asyncio.sleep(0.01)
            assert server.process.poll() is None
            (folder / "hold").unlink()
            answers = await asyncio.gather(*held)
            assert [answer.json() for answer in answers] == [[0], [1], [2]]

    asyncio.run(run())
    assert server.process.wait(30) == 0


def test_ping_is_503_while_the_model_loads(start: Callable[..., ModelServer], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "hold").touch()
    (folder / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d):\n"
        "    while (pathlib.Path(d) / 'hold').exists(): time.sleep(0.01)\n"
        "def predict_fn(data, model): return data\n",
        encoding="utf-8",
    )
    server = start(folder, wait=False)

    def status(path: str) -> int | None:
        try:
            return httpx.get(f"{server.url}{path}").status_code
        except httpx.TransportError:
            return None

    wait_for(lambda: status("/ping") is not None, 30)
    answer = httpx.get(f"{server.url}/ping")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert status("/v2/health/live") == 200
    assert status("/v2/health/ready") == 503
    assert httpx.post(f"{server.url}/invocations", json=[1]).status_code == 503
    (folder / "hold").unlink()
    server.wait_until_ready()
    assert httpx.post(f"{server.url}/invocations", json=[1]).json() == [1]


def test_workers_are_one_a_core_for_an_engine_that_is_not_parallel(start: Callable[..., ModelServer]) -> None:
    server = start(DIGITS, workers=0)
    cores = len(os.sched_getaffinity(0))
    wait_for(lambda: server.metric("model_server_workers_ready") == cores, 60)
    assert len(server.workers) == cores


def refused(start: Callable[..., ModelServer], directory: Path, **options: object) -> tuple[int, str, str]:
    """Exit code, level and message of the last line of a server that cannot start."""
    server = start(directory, wait=False, **options)
    code = server.process.wait(60)
    last = server.log()[-1]
    return code, last["level"], last["message"]


def test_a_model_that_cannot_be_served_ends_in_one_clear_line(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not a graph")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    for directory, options, named in (
        (empty, {}, "no engine"),
        (tmp_path / "nowhere", {}, "is not a folder"),
        (broken, {}, "model.onnx is not a readable ONNX model"),
        (pickled, {}, "MODEL_SERVER_TRUST_CODE=true"),
        (DIGITS, {"engine": "tensorflow"}, "MODEL_SERVER_ENGINE is 'tensorflow'"),
        (DIGITS, {"max_queue": 0}, "MODEL_SERVER_MAX_QUEUE is '0'; allowed: 1 or more"),
        (DIGITS, {"max_ques": 7}, "MODEL_SERVER_MAX_QUES is not a setting"),
        (DIGITS, {"nan": "maybe"}, "allowed: allow, refuse"),
    ):
        code, level, message = refused(start, directory, **options)
        assert code == 78
        assert level == "error"
        assert named in message


def test_a_taken_port_is_one_clear_line(start: Callable[..., ModelServer]) -> None:
    first = start(DIGITS)
    code, _, message = refused(start, DIGITS, port=first.port)
    assert code == 78
    assert f"cannot listen to 127.0.0.1:{first.port}" in message


def test_a_worker_that_dies_before_it_is_ready_ends_the_server(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inference.py").write_text(
        "import os, signal\ndef model_fn(d): os.kill(os.getpid(), signal.SIGKILL)\n", encoding="utf-8"
    )
    code, level, message = refused(start, folder)
    assert (code, level) == (1, "error")
    assert "killed by SIGKILL" in message


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_workers_leave_when_their_supervisor_was_killed(start: Callable[..., ModelServer]) -> None:
    server = start(DIGITS, workers=2)
    wait_for(lambda: len(server.workers) == 2, 30)
    workers = server.workers
    server.process.kill()
    server.process.wait(10)
    wait_for(lambda: all(is_gone(worker) for worker in workers), 30)


def test_a_worker_answers_what_it_was_sent_before_its_supervisor_was_killed(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    """And takes no new connection meanwhile: the port is free for another supervisor."""
    (tmp_path / "hold").touch()
    (tmp_path / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d): return pathlib.Path(d)\n"
        "def predict_fn(data, d):\n"
        "    while (d / 'hold').exists(): time.sleep(0.01)\n"
        "    return data\n",
        encoding="utf-8",
    )
    server = start(tmp_path, drain_seconds=25)
    [worker] = server.workers

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as session, asyncio.timeout(40):
            held = [asyncio.create_task(session.post("/invocations", json=[i])) for i in range(3)]
            while server.metric("model_server_queue_depth") < 2:
                await asyncio.sleep(0.01)
            server.process.kill()
            server.process.wait(10)
            while is_open(server.port):
                await asyncio.sleep(0.01)
            assert not is_gone(worker)
            (tmp_path / "hold").unlink()
            assert [answer.json() for answer in await asyncio.gather(*held)] == [[0], [1], [2]]

    asyncio.run(run())
    wait_for(lambda: is_gone(worker), 30)
    assert "the supervisor is gone" in [line["message"] for line in server.log()]


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux's own")
def test_the_kernel_takes_a_worker_before_the_supervisor_where_memory_runs_out(
    start: Callable[..., ModelServer],
) -> None:
    server = start(DIGITS)
    [worker] = server.workers
    adjusted = [
        int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))
        for pid in (server.process.pid, worker.pid)
    ]
    assert adjusted[0] < adjusted[1]


def test_sigterm_while_the_model_loads_is_an_exit_with_0(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(
        "import time\ndef model_fn(d):\n    while True: time.sleep(0.01)\n", encoding="utf-8"
    )
    server = start(tmp_path, wait=False)
    wait_for(lambda: len(server.workers) == 1 and is_open(server.port), 30)
    assert server.terminate() == 0


def is_open(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_sagemakers_port_wins(start: Callable[..., ModelServer]) -> None:
    port = free_port()
    server = start(DIGITS, wait=False, environment={"SAGEMAKER_BIND_TO_PORT": str(port)})
    server.port = port
    server.wait_until_ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_either_signal_stops_supervisor_and_workers(
    start: Callable[..., ModelServer], number: signal.Signals
) -> None:
    server = start(DIGITS, workers=2)
    wait_for(lambda: len(server.workers) == 2, 30)
    workers = server.workers
    server.process.send_signal(number)
    assert server.process.wait(30) == 0
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


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
