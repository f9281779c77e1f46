"""The first process: opens the port, starts the workers, starts them again, and stops them.

It imports no engine and starts no thread, so that a fork of it is a clean worker. The first worker alone
decides whether the model can be served at all; the others follow once it is ready, and only if the engine
leaves them cores.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic

from model_server import metrics
from model_server.handover import Mailboxes
from model_server.logs import event
from model_server.problems import ModelRefusedError
from model_server.settings import Settings, available_cores
from model_server.watchdog import LOOK_SECONDS, Watchdog

# Of the first worker, before it was ever ready.
MAX_EARLY_DEATHS = 3
LONGEST_PAUSE = 10.0
# On this signal a worker writes where each of its threads is, to stderr (worker.run).
EXPLAIN = signal.SIGUSR2
# What ends a worker that is told to stop before it listens to that; later on it ends by itself.
STOPPING = (signal.SIGTERM, signal.SIGINT)
STOPS = tuple(-number for number in STOPPING)


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit code: 0 when every request was answered."""
    return Supervisor(settings).run()


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener = _listen(settings)
        self._workers = settings.workers or available_cores()
        self._metrics = metrics.SharedMetrics(self._workers)
        self._mailboxes = Mailboxes(self._workers)
        self._watchdog = Watchdog(settings)
        self._looked = 0.0
        self._stuck: set[int] = set()  # pids that are being ended
        # Nothing is ever written: the workers' end is closed when this process is gone, however it went.
        self._lifeline = socket.socketpair()
        self._running: dict[int, int] = {}  # pid -> slot
        self._due: dict[int, float] = {}  # slot -> when to start it again
        self._deaths = [0] * self._workers  # since the worker was last ready
        self._ever_ready = False
        self._stopping = False
        self._code = 0

    def run(self) -> int:
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._start(0)
        while self._running or (self._due and not self._stopping):
            ready, _, _ = select.select([wake], [], [], self._patience())
            received = wake.recv(4096) if ready else b""
            if not self._stopping and (signal.SIGTERM in received or signal.SIGINT in received):
                self._stop()
            self._bury()
            self._watch()
            if not self._stopping:
                self._grow()
        return self._code

    def _patience(self) -> float | None:
        if self._due:
            # A hung worker is looked for meanwhile.
            return min(LOOK_SECONDS, max(0.0, min(self._due.values()) - monotonic()))
        # Until every worker is ready, readiness is looked at; after that signals and the watchdog matter.
        if not all(self._metrics.each(metrics.READY)[: self._workers]):
            return 0.05
        return LOOK_SECONDS if self._watchdog.on else None

    def _start(self, slot: int) -> None:
        # A signal that reaches the child before it has given up the supervisor's handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        pid = os.fork()
        if pid:
            self._running[pid] = slot
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            return
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            mine, lifeline = self._lifeline
            mine.close()
            from model_server import worker

            mailbox = self._mailboxes.of(slot) if self._metrics.workers > 1 else None
            code = worker.run(
                self._settings, self._listener, self._metrics.worker(slot), lifeline, slot, mailbox
            )
        except BaseException as error:
            logging.getLogger("model_server").exception("worker died")
            event(logging.ERROR, f"worker died: {type(error).__name__}: {error}")
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def _grow(self) -> None:
        """Workers whose time has come; and, once the first is ready, those that it leaves room for."""
        ready = self._metrics.each(metrics.READY)
        for slot in range(self._workers):
            if ready[slot]:
                self._deaths[slot] = 0
        if not self._ever_ready and ready[0]:
            self._ever_ready = True
            if self._metrics.each(metrics.PARALLEL)[0] and not self._settings.workers:
                self._workers = 1
            for slot in range(1, self._workers):
                self._due[slot] = 0.0
        now = monotonic()
        for slot in [slot for slot, when in self._due.items() if when <= now]:
            del self._due[slot]
            self._start(slot)

    def _watch(self) -> None:
        """Ends workers that will not go on by themselves; they are started again as those that died."""
        if monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = monotonic()
        for pid in self._stuck:  # it has had the time to write where it is
            _send(pid, signal.SIGKILL)
        running = {pid: slot for pid, slot in self._running.items() if pid not in self._stuck}
        slots = {pid: self._metrics.worker(slot).values for pid, slot in running.items()}
        for pid, why in self._watchdog.look(slots).items():
            event(logging.ERROR, f"worker {pid} is stuck: {why}", worker=running[pid])
            self._stuck.add(pid)
            _send(pid, EXPLAIN)

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            slot = self._running.pop(pid, None)
            if slot is None:
                continue
            counters = self._metrics.worker(slot).values
            for gauge in metrics.GAUGES:
                counters[gauge] = 0
            code = os.waitstatus_to_exitcode(status)
            how = "ended for being stuck" if pid in self._stuck else _end(code)
            self._stuck.discard(pid)
            if self._stopping:
                killed = code < 0 and code not in STOPS
                if killed:  # what was sent to it has no answer
                    event(logging.ERROR, f"worker {pid} was {how} while it stopped", worker=slot)
                self._code = max(self._code, code, int(killed))
            else:
                self._recover(slot, pid, code, how, counters)

    def _recover(self, slot: int, pid: int, code: int, how: str, counters: memoryview) -> None:
        self._deaths[slot] += 1
        if code == 78 and not self._ever_ready:  # the worker has said why in its last line
            self._give_up(code)
            return
        event(logging.ERROR, f"worker {pid} was {how}" if code < 0 else f"worker {pid} {how}", worker=slot)
        if not self._ever_ready and self._deaths[slot] >= MAX_EARLY_DEATHS:
            event(
                logging.ERROR,
                f"the model cannot be served: {self._deaths[slot]} workers {how} before they were ready",
            )
            self._give_up(1)
            return
        counters[metrics.RESTARTS] += 1
        # After its first death a worker is started at once, and later and later if it keeps dying.
        pause = 0.0 if self._deaths[slot] == 1 else min(0.1 * 2.0 ** self._deaths[slot], LONGEST_PAUSE)
        self._due[slot] = monotonic() + pause

    def _give_up(self, code: int) -> None:
        self._code = code
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._listener.close()  # the workers hold their own until they have drained
        self._due.clear()
        for pid in self._running:
            _send(pid, signal.SIGTERM)


def _send(pid: int, number: signal.Signals) -> None:
    """A signal to a worker, which may have just died."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _end(code: int) -> str:
    """How a worker ended, from its exit code or the signal below 0."""
    if code >= 0:
        return f"exited with {code}"
    memory = " (the kernel does this when memory runs out)" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{memory}"


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise ModelRefusedError(
            f"cannot listen to {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener
