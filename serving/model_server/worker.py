"""One worker process: loads the model behind an open port, answers, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import uvloop

from model_server import http, metrics
from model_server.admission import UNKNOWN
from model_server.app import Application
from model_server.engines import Engine, EngineModule, RawEngine, choose, require_contracts, saved_with
from model_server.handover import Mailbox, Neighbours
from model_server.logs import event, log
from model_server.problems import ModelRefusedError, ProblemError, SignatureNeededError
from model_server.request import RequestParts, renew_process
from model_server.settings import Settings
from model_server.signature import read_classes, read_signature
from model_server.watchdog import BEAT_SECONDS

REFUSED = 78  # EX_CONFIG: the model or the settings are wrong, and starting again would not help
KEPT_BYTES = 32 * 1024 * 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SETTLE_SECONDS = 1.0  # after the model is there, so that readiness does not wait for a collection
CUT_SECONDS = 0.5  # for the error events of streams that are cut to be sent
QUIET_SECONDS = 0.25  # without a request, while draining: the load balancer has noticed


def run(
    settings: Settings,
    listener: socket.socket,
    counters: metrics.WorkerMetrics,
    lifeline: socket.socket,
    slot: int,
    mailbox: Mailbox | None,
) -> int:
    """The worker's whole life. Returns its exit code.

    Args:
        lifeline: ends with the supervisor: the worker then finishes what it was sent, and leaves, too.
        slot: which of the workers it is.
        mailbox: between it and its siblings; None where it has none.
    """
    renew_process()
    keep_memory()
    offer_to_oom_killer()
    # The supervisor asks for it (supervisor.EXPLAIN) before it ends a worker that hangs.
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    worker = Worker(settings, listener, counters, lifeline, slot, mailbox)
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(worker.serve())


def keep_memory() -> None:
    """Keeps up to 32 MiB of freed memory in the process.

    glibc gives back half a megabyte at once, and the kernel has to make it anew, page by page, for the next
    large body: half of such a request's time. Other C libraries have no mallopt, or ignore it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, KEPT_BYTES)


def offer_to_oom_killer() -> None:
    """Where memory runs out, the kernel kills a worker, which is started again, and not the supervisor.

    All of a container's processes end with its first.
    """
    with suppress(OSError):  # another system than Linux, or a sandbox
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def settle() -> None:
    """Excludes existing objects from garbage collection, and makes collections rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


class Worker:
    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        counters: metrics.WorkerMetrics,
        lifeline: socket.socket,
        slot: int,
        mailbox: Mailbox | None,
    ) -> None:
        self._settings, self._listener, self._counters = settings, listener, counters
        self._mailbox = mailbox
        self._siblings = Neighbours(slot, counters, mailbox) if mailbox else None
        self._application = Application(settings, counters)
        self._server = http.Server(self._application, settings, counters)
        self._application.server = self._server
        self._stop = asyncio.Event()
        self._exit = 0
        self._open = True  # until it drains
        self._lifeline = lifeline
        self._orphaned = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> int:
        self._loop = loop = asyncio.get_running_loop()
        for gauge in metrics.GAUGES:  # of a worker that was killed
            self._counters.values[gauge] = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(self._lifeline.fileno(), self._lose_supervisor)
        if self._mailbox is not None:
            loop.add_reader(self._mailbox.fileno(), self._adopt)
        self._accepting(on=True)
        self._tick()
        self._beat()
        # A daemon, since a load that hangs must not keep the process from leaving.
        threading.Thread(target=self._load, name="load", daemon=True).start()
        await self._stop.wait()
        await self._drain()
        self._counters.values[metrics.BEAT] = 0  # from here on, silence means nothing
        return self._exit

    def _beat(self) -> None:
        """Shows the supervisor, and siblings that have a request to give, that the event loop runs.

        What waits behind a call that takes longer than was foreseen is offered to siblings.
        """
        if self._application.batcher is not None:
            self._application.batcher.relieve()
        self._counters.values[metrics.BEAT] = int(perf_counter() * metrics.NANOSECONDS)
        self._loop.call_later(BEAT_SECONDS, self._beat)

    def _tick(self) -> None:
        self._server.tick()
        self._application.publish()
        self._loop.call_later(1.0, self._tick)

    def _lose_supervisor(self) -> None:
        """The supervisor was killed: what was sent is answered, and a new one finds the port free."""
        self._loop.remove_reader(self._lifeline.fileno())
        event(logging.ERROR, "the supervisor is gone")
        self._orphaned = True
        self._stop.set()

    # Connections

    def _accepting(self, *, on: bool) -> None:
        if on:
            self._loop.add_reader(self._listener.fileno(), self._accept)
        else:
            self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        """One connection a turn, so that workers share; none for a moment above its own share.

        A worker whose model is loading leaves connections to those that can answer, if there are any.
        """
        mine = self._counters.values[metrics.CONNECTIONS]
        shared = self._counters.shared
        if not self._counters.values[metrics.READY] and any(shared.each(metrics.READY)):
            self._accepting(on=False)
            self._loop.call_later(0.02, self._look_again)
            return
        if shared.workers > 1 and mine > min(
            connections
            for connections, ready in zip(
                shared.each(metrics.CONNECTIONS), shared.each(metrics.READY), strict=True
            )
            if ready or connections == mine
        ):
            self._accepting(on=False)
            self._loop.call_later(0.001, self._accept_anyway)
            return
        self._accept_one()

    def _look_again(self) -> None:
        if self._open:
            self._accepting(on=True)

    def _accept_anyway(self) -> None:
        if self._open and self._accept_one():
            self._accepting(on=True)

    def _accept_one(self) -> bool:
        """False: there was no file descriptor left for a connection; it is tried again in a moment."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return True
        except OSError as error:  # out of file descriptors: a pause, in which some are given back
            event(logging.WARNING, "cannot accept a connection", error=str(error))
            self._accepting(on=False)
            self._loop.call_later(0.1, self._accept_anyway)
            return False
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serve(client)
        return True

    def _adopt(self) -> None:
        """Connections of siblings that are busy, each with a request."""
        assert self._mailbox is not None
        for client, parts in self._mailbox.receive():
            client.setblocking(False)
            self._serve(client, parts)

    def _serve(self, client: socket.socket, parts: RequestParts | None = None) -> None:
        task = self._loop.create_task(self._connect(client, parts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: socket.socket, parts: RequestParts | None) -> None:
        try:
            await self._loop.connect_accepted_socket(partial(self._server, parts), client)
        except OSError:  # gone before it was served
            client.close()

    # The model

    def _load(self) -> None:
        """On a thread of its own, while /ping answers 503."""
        try:
            started = perf_counter()
            engine, warm_up = load_engine(_model_directory(self._settings), self._settings)
            seconds = perf_counter() - started
            self._loop.call_soon_threadsafe(self._loaded, engine, seconds, warm_up)
        except ModelRefusedError as error:
            self._refuse(str(error), REFUSED)
        except BaseException as error:  # sys.exit() in a script, too; the traceback first, its cause last
            log.error("the model cannot be loaded", exc_info=error)
            self._refuse(
                f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}", REFUSED
            )

    def _refuse(self, reason: str, code: int) -> None:
        event(logging.ERROR, reason)
        # Not sys.exit: this is a thread, and the engine's own threads may still run.
        os._exit(code)

    def _loaded(self, engine: Engine, seconds: float, warm_up: float) -> None:
        self._application.install(engine, self._loop, warm_up, self._siblings)
        values = self._counters.values
        values[metrics.LOAD_NANOSECONDS] = int(seconds * metrics.NANOSECONDS)
        values[metrics.PARALLEL] = int(engine.parallel)
        values[metrics.READY] = 1
        self._loop.call_later(SETTLE_SECONDS, settle)
        event(
            logging.INFO,
            "ready",
            model=self._settings.model_name,
            engine=engine.name,
            framework=engine.framework,
            framework_version=engine.framework_version,
            load_seconds=round(seconds, 3),
            port=self._listener.getsockname()[1],
            pid=os.getpid(),
        )

    # Draining

    async def _drain(self) -> None:
        """/ping says 503; what was sent is answered; then the connections close."""
        server, settings = self._server, self._settings
        server.draining = True
        if self._application.batcher is not None:
            self._application.batcher.share(on=False)
        started = perf_counter()
        deadline = started + settings.drain_seconds
        event(logging.INFO, "draining", in_flight=server.in_flight, connections=len(server.connections))
        # The port stays open while requests arrive, for at most a fifth of the time; not where another
        # supervisor may be waiting for it.
        announced = started + (0.0 if self._orphaned else min(settings.drain_seconds / 5, 5.0))
        # Both loops poll: an event for what ends them would cost every request time.
        while (now := perf_counter()) < announced:
            if now - max(server.last_request, started) >= QUIET_SECONDS:
                break
            await asyncio.sleep(0.01)
        self._open = False
        self._accepting(on=False)
        self._accept_backlog()
        self._listener.close()
        # From here on each connection closes after its answer. One without a request is closed only after a
        # moment: its client may be sending one.
        server.closing = True
        closed = perf_counter() + min(QUIET_SECONDS, settings.drain_seconds / 5)
        while (now := perf_counter()) < deadline:
            if self._mailbox is not None:
                self._adopt()  # what a sibling sent before it saw that this worker leaves
            if now >= closed:
                for connection in list(server.connections):
                    connection.close_if_idle()
                if not server.in_flight and not self._tasks and not any(c.busy for c in server.connections):
                    break
            await asyncio.sleep(0.005)
        left = server.in_flight + sum(connection.unsent for connection in server.connections)
        if left:
            event(
                logging.ERROR,
                "stopped with requests unanswered",
                requests=left,
                drain_seconds=settings.drain_seconds,
            )
            self._exit = 1
            await self._cut_streams()
        if self._application.batcher is not None:
            self._application.batcher.close()
        event(logging.INFO, "stopped", pid=os.getpid())

    async def _cut_streams(self) -> None:
        """Ends the streams for which no time is left, and closes their iterators."""
        streams = list(self._server.streams)
        for stream in streams:
            stream.cut(ProblemError(503, "the server stops, and the answer is not complete"))
        if streams:
            await asyncio.wait([stream.task for stream in streams], timeout=CUT_SECONDS)

    def _accept_backlog(self) -> None:
        """Accepts what the kernel has queued: closing the port would reset these connections."""
        for _ in range(1024):
            before = len(self._tasks)
            self._accept_one()
            if len(self._tasks) == before:
                return


def _model_directory(settings: Settings) -> Path:
    if settings.model_uri:
        # Archives, hashes and S3 are imported only where they are needed.
        from model_server.model_data import prepare

        return prepare(settings)
    if not settings.model_dir.is_dir():
        raise ModelRefusedError(
            f"there is no model: {settings.model_dir} is not a folder, and MODEL_SERVER_MODEL_URI is not set"
        )
    return settings.model_dir


def load_engine(directory: Path, settings: Settings) -> tuple[Engine, float]:
    """A loaded engine that has answered once, and the seconds of its second answer; or ModelRefusedError."""
    module = choose(directory, settings.engine)
    require_contracts(module.ENGINE, settings.groups)
    try:
        return _tried(module, directory, settings)
    except Exception as error:
        saved = saved_with(module, directory)
        if saved is None or not saved.differs or _lacks_columns(error):
            raise
        cause = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        if not isinstance(error, ModelRefusedError):
            cause = f"{type(error).__name__}: {cause}"
        raise ModelRefusedError(saved.explain(cause)) from error


def _lacks_columns(error: Exception) -> bool:
    """Whether a signature.json can help; it cannot where the library's own attributes are missing."""
    return isinstance(error, SignatureNeededError) and not isinstance(error.__cause__, AttributeError)


def _tried(module: EngineModule, directory: Path, settings: Settings) -> tuple[Engine, float]:
    engine = module.load(directory, settings)
    if isinstance(engine, RawEngine):
        return engine, UNKNOWN
    labels = read_classes(directory)
    if labels and labels != engine.signature.classes:
        engine.signature = engine.signature.with_classes(labels)
    try:
        outputs = engine.predict(engine.example(), {})
        started = perf_counter()
        engine.predict(engine.example(), {})
        seconds = perf_counter() - started
    except Exception as error:
        log.error("the warm-up prediction failed", exc_info=error)
        reason = (str(error).strip() or "no message").splitlines()[0]
        what = f"the warm-up prediction failed: {type(error).__name__}: {reason}"
        if engine.derives_columns and read_signature(directory) is None:
            raise SignatureNeededError(what, engine.signature.to_json()) from error
        raise ModelRefusedError(what) from error
    for tensor in engine.signature.outputs:
        got = outputs.get(tensor.name)
        if got is None or got.ndim != len(tensor.shape):
            held = {name: list(array.shape) for name, array in outputs.items()}
            raise ModelRefusedError(
                f"the signature has {tensor.name} of shape {list(tensor.shape)}, but the warm-up gave {held}"
            )
    return engine, seconds
