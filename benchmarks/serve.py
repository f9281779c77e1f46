"""The model server beside its peers, in one run: throughput, 1,000-row bodies, cold start.

    python -m benchmarks.serve load [--model digits-onnx] [--quick] [--only NAME ...] [--against REVISION]
    python -m benchmarks.serve bodies [--quick]
    python -m benchmarks.serve start [--quick]
    python -m benchmarks.serve contestants

Rounds are interleaved (A B C, A B C, ...) and medians are shown, so that what else a machine does disturbs
all alike. Every table goes to stdout as Markdown; `--into FILE` also puts it between that file's markers,
`<!-- begin NAME -->` and `<!-- end NAME -->`. Progress goes to stderr. Only loopback addresses are used.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import http.client
import io
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks import load
from benchmarks.contestants import (
    ROOT,
    Contestant,
    DidNotStartError,
    Running,
    ours,
    peers,
    prefer,
    serving,
    serving_at,
    sink,
    start,
)

MODELS = ROOT / "model_artifacts"
FLOOR = "raw uvloop (floor)"
OURS = "model_server"
FIVE_TIMES = ("KServe", "MLServer", "LitServe", "BentoML", "multi-model-server")
JSON_HEADERS = {"content-type": "application/json"}
# What API Gateway and a load balancer add to each request.
TRACED = {"x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678"}
LOAD_HEADER = [
    *("", "requests/s", "of floor", "p50 ms", "p99 ms"),
    *("server CPU us/request", "client CPU", "errors"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, about in (
        ("load", measure_load, "requests per second with one-row bodies, against the peers"),
        ("bodies", measure_bodies, "1,000-row bodies, against parse and predict by hand"),
        ("start", measure_start, "cold start to ready, against importing and loading by hand"),
        ("contestants", list_contestants, "how each server is run; measures nothing"),
    ):
        command = commands.add_parser(name, help=about)
        command.set_defaults(function=function)
        command.add_argument("--quick", action="store_true", help="short rounds: seconds, not minutes")
        command.add_argument("--rounds", type=int, default=None)
        command.add_argument(
            "--prefer",
            action="store_true",
            help="on a machine with other work to do: put what is measured before it, and rest afterwards"
            " (Linux, root; run by setsid)",
        )
        command.add_argument("--into", type=Path, help="a Markdown file with this table's markers")
        if name == "load":
            command.add_argument("--model", default="digits-onnx", help="a folder of model_artifacts/")
            command.add_argument("--seconds", type=float, default=None, help="of one slice")
            command.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
            command.add_argument(
                "--against", metavar="REVISION", help="another commit's server, side by side"
            )
            command.add_argument("--only", nargs="+", help="contestants whose name begins so")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    if options.prefer:
        prefer(os.getpid())
    name, table = options.function(options)
    command = " ".join(["python -m benchmarks.serve", *(sys.argv[1:] if arguments is None else arguments)])
    text = f"`{command.split(' --into')[0]}` on {machine()}\n\n{table}"
    sys.stdout.write(text)
    if options.into:
        insert(options.into, name, text)
    return 0


# ------------------------------------------------------------------------------------------------ load


@dataclass(frozen=True)
class Slice:
    """One contestant under load for some seconds."""

    result: load.Result
    server_cpu_per_request: float  # seconds of processor time of all its processes


def measure_load(options: argparse.Namespace) -> tuple[str, str]:
    model = MODELS / options.model
    rounds = options.rounds or (2 if options.quick else 9)
    seconds = options.seconds or (0.4 if options.quick else 0.6)
    earlier = f"{OURS} of {options.against}, 1 worker"
    contestants = everybody()
    if options.against:
        contestants.insert(2, ours(1, earlier, folder=serving_at(options.against)))
    contestants = [contestant for contestant in contestants if _chosen(contestant, options.only)]
    slices: dict[tuple[str, int], list[Slice]] = {}
    absent: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running: list[tuple[Running, bytes]] = []
        for contestant in contestants:
            try:
                server, request = stack.enter_context(_ready(contestant, model))
            except DidNotStartError as error:
                absent[contestant.name] = str(error)
                _progress(f"{contestant.name}: {error}")
                continue
            if options.prefer:
                server.prefer()
            server.pause()
            stack.callback(server.resume)
            running.append((server, request))
            _progress(f"{contestant.name}: ready")
        for turn in range(rounds):
            for connections in options.connections:
                for server, request in running:
                    server.resume()
                    measured = _slice(server, request, connections, seconds)
                    server.pause()
                    if options.prefer:
                        time.sleep(seconds)
                    slices.setdefault((server.contestant.name, connections), []).append(measured)
                _progress(
                    f"round {turn + 1} of {rounds}, {connections} connections, load {os.getloadavg()[0]:.1f}"
                )
    tables = _load_tables(contestants, slices, absent, options.connections, rounds, seconds)
    if options.against:
        tables = _against(slices, earlier, options.connections) + "\n" + tables
    return f"load {options.model}", tables


def everybody() -> list[Contestant]:
    """The floor, this server in its forms, and its peers."""
    own = [ours(1, f"{OURS}, 1 worker"), ours(0, f"{OURS}, auto"), ours(1, f"{OURS}, traced", TRACED)]
    return [*peers()[:1], *own, *peers()[1:]]


def list_contestants(_: argparse.Namespace) -> tuple[str, str]:
    rows = [[each.name, each.about] for each in everybody()]
    return "contestants", markdown(["contestant", "how it was run"], rows)


def _against(slices: dict[tuple[str, int], list[Slice]], earlier: str, connections: list[int]) -> str:
    """This server's figures divided by an earlier one's, round by round."""

    def ratio(count: int, figure: Callable[[Slice], float]) -> str:
        pairs = zip(slices[f"{OURS}, 1 worker", count], slices[earlier, count], strict=True)
        ratios = sorted(figure(now) / figure(then) for now, then in pairs)
        return f"{median(ratios):.3f} ({ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f})"

    rows = [
        [
            str(count),
            ratio(count, lambda each: each.result.requests_per_second),
            ratio(count, lambda each: each.server_cpu_per_request),
            ratio(count, lambda each: each.result.p50),
        ]
        for count in connections
    ]
    header = ["connections", "requests/s", "server CPU per request", "p50"]
    return f"Against {earlier}, medians of the rounds' ratios (middle half):\n\n{markdown(header, rows)}"


def _chosen(contestant: Contestant, only: list[str] | None) -> bool:
    if only is None:
        return not contestant.optional
    return any(contestant.name.lower().startswith(wanted.lower()) for wanted in only)


@contextlib.contextmanager
def _ready(contestant: Contestant, model: Path) -> Any:
    """The contestant, once it answers the model's first held-out row as the trainer did, and that request."""
    body, expected = one_row(model, contestant.protocol)

    def is_ready(port: int) -> bool:
        return answers_with(port, contestant.path, body, expected)

    with serving(contestant, model, is_ready) as server:
        yield server, load.post(contestant.path, body, JSON_HEADERS | contestant.headers)


def one_row(model: Path, protocol: str) -> tuple[bytes, list[float]]:
    """The JSON body of the model's first held-out row, and the numbers that the answer has to hold."""
    predictions = json.loads((model / "predictions.json").read_text())["predictions"]
    expected = numbers(predictions[0])
    if (model / "holdout.npy").exists():
        row = np.load(model / "holdout.npy")[0].astype(np.float32)
        values = [float(str(value)) for value in row]  # the shortest text that is the same float32
        if protocol == "open-inference":
            tensor = {"name": "X", "shape": [1, len(values)], "datatype": "FP32", "data": values}
            return json.dumps({"inputs": [tensor]}).encode(), expected
        return json.dumps({"instances": [values]}).encode(), expected
    if protocol == "open-inference":
        raise DidNotStartError("not run: this peer's script takes numbers only")
    texts = json.loads((model / "holdout.json").read_text())["inputs"]
    return json.dumps({"inputs": [texts[0]]}).encode(), expected


def answers_with(port: int, path: str, body: bytes, expected: list[float]) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, body, JSON_HEADERS)
        response = connection.getresponse()
        got = numbers(json.loads(response.read()))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return response.status == 200 and bool(np.allclose(got[-len(expected) :], expected, rtol=1e-3, atol=1e-5))


def numbers(answer: Any) -> list[float]:
    """Every number of a JSON value, in order, whatever the protocol wraps around them."""
    if isinstance(answer, dict):
        return [number for key, value in answer.items() if key != "parameters" for number in numbers(value)]
    if isinstance(answer, list):
        return [number for value in answer for number in numbers(value)]
    return [float(answer)] if isinstance(answer, int | float) and not isinstance(answer, bool) else []


def _slice(server: Running, request: bytes, connections: int, seconds: float) -> Slice:
    before = server.cpu_seconds()
    result = load.run(server.port, request, connections, seconds)
    spent = server.cpu_seconds() - before
    # The warm-up costs processor time too: counted at the same rate.
    requests = result.requests * (seconds + load.WARM_UP_SECONDS) / seconds
    return Slice(result, spent / requests if requests else float("inf"))


def _load_tables(
    contestants: list[Contestant],
    slices: dict[tuple[str, int], list[Slice]],
    absent: dict[str, str],
    connections: list[int],
    rounds: int,
    seconds: float,
) -> str:
    parts = [f"Medians of {rounds} interleaved rounds of {seconds:g} s.\n"]
    for count in connections:
        rows = []
        floor = _rate(slices.get((FLOOR, count), []))
        for contestant in contestants:
            taken = slices.get((contestant.name, count))
            if taken is None:
                rows.append([contestant.name, "-", "-", "-", "-", "-", "-", absent[contestant.name]])
                continue
            rate = _rate(taken)
            rows.append(
                [
                    contestant.name,
                    f"{rate:,.0f}",
                    f"{rate / floor:.2f}" if floor else "-",
                    f"{median(each.result.p50 for each in taken) * 1e3:.2f}",
                    f"{_p99(taken) * 1e3:.2f}",
                    f"{median(each.server_cpu_per_request for each in taken) * 1e6:.0f}",
                    f"{median(each.result.client_cpu for each in taken):.0%}",
                    f"{sum(each.result.errors for each in taken)}",
                ]
            )
        parts.append(f"**Connections: {count}**\n\n{markdown(LOAD_HEADER, rows)}")
    verdicts = _targets(slices, connections)
    if verdicts:
        parts.append(markdown(["target", "measured", "met"], verdicts))
    return "\n".join(parts)


def _rate(taken: list[Slice]) -> float:
    return median(each.result.requests_per_second for each in taken) if taken else 0.0


def _p99(taken: list[Slice]) -> float:
    return median(each.result.p99 for each in taken)


def _targets(slices: dict[tuple[str, int], list[Slice]], connections: list[int]) -> list[list[str]]:
    """The targets of this comparison, each with what this run measured; empty without our own rows."""
    names = {name for name, _ in slices}
    own = [name for name in sorted(names) if name.startswith(OURS)]
    if not own:
        return []
    rows = []

    def add(target: str, measured: str, met: bool) -> None:
        rows.append([target, measured, "yes" if met else "no"])

    many = max(connections)
    best = max(own, key=lambda name: _rate(slices[name, many]))
    rate = _rate(slices[best, many])
    if FLOOR in names:
        ratio = rate / _rate(slices[FLOOR, many])
        add(f"at least half of the raw floor at {many}", f"{ratio:.2f} ({best})", ratio >= 0.5)
    slower = [name for name in FIVE_TIMES if name in names]
    for name in slower:
        ratio = rate / max(_rate(slices[name, many]), 1e-9)
        add(f"at least 5 times {name} at {many}", f"{ratio:.1f}", ratio >= 5)
    if slower:
        p99, other = (_p99(slices[best, many]) * 1e3, min(_p99(slices[name, many]) for name in slower) * 1e3)
        add(
            f"p99 at {many} no worse than the best of them",
            f"{p99:.2f} ms against {other:.2f} ms",
            p99 <= other,
        )
    rivals = [name for name in names if name not in own and name != FLOOR]
    for count in (count for count in connections if count < many and rivals):
        mine = max(own, key=lambda name: _rate(slices[name, count]))
        rival = max(rivals, key=lambda name: _rate(slices[name, count]))
        ratio = _rate(slices[mine, count]) / _rate(slices[rival, count])
        add(f"at {count} no slower than any", f"{ratio:.2f} of {rival} ({mine})", ratio >= 1)
    return rows


# ---------------------------------------------------------------------------------------------- bodies


def measure_bodies(options: argparse.Namespace) -> tuple[str, str]:
    """One connection, 1,000 rows a request, against the same work done by hand in this process."""
    rounds = options.rounds or (3 if options.quick else 9)
    rows = []
    for name in ("digits-onnx", "churn-xgboost"):
        model = MODELS / name
        server_of_ours = _ready(ours(1, f"{OURS}, 1 worker"), model)
        with server_of_ours as (server, _), serving(sink(), model, _accepts) as drain:
            if options.prefer:
                server.prefer()
                drain.prefer()
            for kind, content_type, body, parse in thousand_rows(model):
                headers = {"content-type": content_type, "accept": content_type}
                request = load.post("/invocations", body, headers)
                read, answer = by_hand(model, kind, parse)
                hand, whole, served, inside, transfer = [], [], [], [], []
                for _turn in range(rounds):
                    hand.append(_repeat(read, body))
                    whole.append(_repeat(answer, body))
                    before = answered(server.port)
                    result = load.run(server.port, request, 1, 0.5)
                    after = answered(server.port)
                    served.append(result.p50 if not result.errors else float("inf"))
                    inside.append((after[0] - before[0]) / (after[1] - before[1]))
                    transfer.append(load.run(drain.port, request, 1, 0.3).p50)
                    if options.prefer:
                        time.sleep(1)
                by, all_, by_server = median(hand), median(whole), median(served)
                in_server = median(inside)
                rows.append(
                    [
                        name,
                        kind,
                        f"{len(body) / 1e3:,.0f} kB",
                        f"{by * 1e3:.2f}",
                        f"{all_ * 1e3:.2f}",
                        f"{in_server * 1e3:.2f}",
                        f"{median(transfer) * 1e3:.2f}",
                        f"{by_server * 1e3:.2f}",
                        f"{in_server / by:.2f}",
                        f"{by_server / by:.2f}",
                        f"{by_server / (all_ + median(transfer)):.2f}",
                    ]
                )
                _progress(" ".join(rows[-1]))
    header = [
        *(
            "model",
            "body",
            "size",
            "parse + predict ms",
            "+ write the answer ms",
            "in the server ms",
            "transfer alone ms",
            "over HTTP ms",
        ),
        *("server / parse + predict", "HTTP / parse + predict", "HTTP / all by hand + transfer"),
    ]
    return "bodies", f"Medians of {rounds} interleaved rounds.\n\n{markdown(header, rows)}"


Parse = Callable[[bytes], np.ndarray]


def answered(port: int) -> tuple[float, int]:
    """Our server's seconds on invocations, each from the whole request read, and their number."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    values = dict(line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines())
    connection.close()
    name = 'model_server_request_seconds_{}{{route="/invocations"}}'
    return float(values[name.format("sum")]), int(values[name.format("count")])


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def thousand_rows(model: Path) -> Iterable[tuple[str, str, bytes, Parse]]:
    """The same 1,000 rows as JSON, CSV and npy, with the quickest parser known for each."""
    import orjson
    import pandas

    def read_csv(body: bytes) -> np.ndarray:
        return pandas.read_csv(io.BytesIO(body), header=None, dtype=np.float32).to_numpy()

    held_out = np.load(model / "holdout.npy").astype(np.float32)
    rows = np.resize(held_out, (1000, held_out.shape[1]))
    text = orjson.dumps({"instances": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    yield "JSON", "application/json", text, lambda body: np.array(orjson.loads(body)["instances"], np.float32)
    table = io.StringIO()
    pandas.DataFrame(rows).to_csv(table, header=False, index=False)
    yield "CSV", "text/csv", table.getvalue().encode(), read_csv
    packed = io.BytesIO()
    np.save(packed, rows)
    yield "npy", "application/x-npy", packed.getvalue(), lambda body: np.load(io.BytesIO(body))


def by_hand(model: Path, kind: str, parse: Parse) -> tuple[Callable[[bytes], Any], Callable[[bytes], bytes]]:
    """Two functions of a body: parse and predict; parse, predict and write the answer."""
    predict = _predict(model)
    return (lambda body: predict(parse(body))), (lambda body: write(kind, predict(parse(body))))


def _predict(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The engine's own prediction of an array [rows, features]."""
    if (model / "model.onnx").exists():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # as the server: a small model, and a machine with other work to do
        session = onnxruntime.InferenceSession(str(model / "model.onnx"), options)
        output = session.get_outputs()[-1].name
        return lambda rows: session.run([output], {session.get_inputs()[0].name: rows})[0]
    import xgboost

    booster = xgboost.Booster(model_file=str(model / "model.json"))
    booster.set_param({"nthread": 1})
    return booster.inplace_predict


def write(kind: str, predictions: np.ndarray) -> bytes:
    """The answer's body, by the quickest means known."""
    import orjson

    if kind == "npy":
        packed = io.BytesIO()
        np.save(packed, predictions)
        return packed.getvalue()
    if kind == "CSV":
        lines = predictions.reshape(len(predictions), -1).tolist()
        return "\n".join([",".join(map(repr, line)) for line in lines]).encode()
    return orjson.dumps({"predictions": np.ascontiguousarray(predictions)}, option=orjson.OPT_SERIALIZE_NUMPY)


def _repeat(work: Callable[[bytes], Any], body: bytes, seconds: float = 0.3) -> float:
    """The median time of one call, over about `seconds`."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.perf_counter()
        work(body)
        times.append(time.perf_counter() - began)
    return median(times)


# ----------------------------------------------------------------------------------------------- start

BY_HAND = {
    "digits-onnx": "import numpy, onnxruntime; s = onnxruntime.InferenceSession({0!r} + '/model.onnx');"
    " s.run(None, {{'X': numpy.load({0!r} + '/holdout.npy')[:1].astype('float32')}})",
    "churn-xgboost": "import numpy, xgboost; b = xgboost.Booster(model_file={0!r} + '/model.json');"
    " b.inplace_predict(numpy.load({0!r} + '/holdout.npy')[:1])",
    "breast-cancer-lightgbm": "import numpy, lightgbm; b = lightgbm.Booster(model_file={0!r} + '/model.txt');"
    " b.predict(numpy.load({0!r} + '/holdout.npy')[:1])",
    "diabetes-sklearn": "import numpy, skops.io as s; f = {0!r} + '/model.skops';"
    " m = s.load(f, trusted=s.get_untrusted_types(file=f));"
    " m.predict(numpy.load({0!r} + '/holdout.npy')[:1])",
}


def measure_start(options: argparse.Namespace) -> tuple[str, str]:
    """Process start to the first 200 of /ping, against a process that imports, loads and predicts once."""
    rounds = options.rounds or (3 if options.quick else 9)
    rows = []
    compileall.compile_dir(ROOT / "serving" / "model_server", quiet=1)  # as the image's build does
    for name, code in BY_HAND.items():
        model, engine = MODELS / name, name.rpartition("-")[2]
        hand, one, auto = [], [], []
        for _turn in range(rounds):
            hand.append(_seconds_by_hand(code.format(str(model))))
            one.append(_seconds_to_ready(ours(1, f"{OURS}, 1 worker", engine=engine), model, options.prefer))
            auto.append(_seconds_to_ready(ours(0, f"{OURS}, auto", engine=engine), model, options.prefer))
            if options.prefer:
                time.sleep(1)
        by, first, default = median(hand), median(one), median(auto)
        rows.append(
            [name, f"{by:.2f}", f"{first:.2f}", f"{first / by:.2f}", f"{default:.2f}", f"{default / by:.2f}"]
        )
        _progress(" ".join(rows[-1]))
    header = ["model", "by hand s", "1 worker s", "ratio", "auto s", "ratio"]
    return "start", f"Medians of {rounds} interleaved rounds.\n\n{markdown(header, rows)}"


def _seconds_by_hand(code: str) -> float:
    """Time from starting the interpreter until the model has predicted once."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code + "; import os; os.write(1, b'.')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.read(1) != b".":
            raise SystemExit(f"by hand failed: {code}")
        return time.perf_counter() - began


def _seconds_to_ready(contestant: Contestant, model: Path, preferred: bool) -> float:
    began = time.perf_counter()
    server = start(contestant, model)
    if preferred:
        server.prefer()
    try:
        while not _pings(server.port):
            if server.exited() or time.perf_counter() - began > 60:
                raise SystemExit(f"the model server did not become ready: {server.log.read_text()[-300:]}")
            time.sleep(0.001)
        return time.perf_counter() - began
    finally:
        server.stop()


def _pings(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# --------------------------------------------------------------------------------------------- writing


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:" if len(header) > 3 else "---"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> str:
    """What ran it, without a date or a name: processor, cores, memory, system, Python."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {python}"


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text().splitlines()
    return []


def insert(file: Path, name: str, text: str) -> None:
    """Replaces what stands between the file's markers for this table. SystemExit where it has none."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    old = file.read_text()
    if begin not in old or end not in old:
        raise SystemExit(f"{file} has no markers {begin} ... {end}")
    head, rest = old.split(begin, 1)
    file.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
