"""The container's environment as one typed model, checked at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model_server.problems import ModelRefusedError
from model_server.routes import CONTRACTS

PREFIX = "MODEL_SERVER_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the variable MODEL_SERVER_<NAME>. ModelRefusedError for a value that makes no sense."""

    model_name: str
    model_dir: Path = Path("/opt/ml/model")
    model_uri: str = ""  # s3://bucket/key.tar.gz[?versionId=...]; empty: MODEL_DIR already holds the model
    model_sha256: str = ""  # of the archive behind model_uri
    engine: str = ""  # empty: detected from the artifact
    host: str = "0.0.0.0"  # noqa: S104 - a container listens to its network interface
    port: int = 8080
    workers: int = 0  # 0: one where the engine is itself parallel, else one a core
    threads: int = 0  # the engine's threads in each worker; 0: the engine chooses
    max_batch_size: int = 64  # rows in one call of the engine
    max_latency_ms: float = 0.0  # how long a batch that is not full may wait for company; 0: never
    max_queue: int = 256  # requests of one worker that wait for the engine
    target_wait_ms: float = 0.0  # that lasting overload may add to a request; 0: less than one call's time
    deadline_seconds: float = 0.0  # after which callers no longer wait for an answer; 0: unknown
    stall_seconds: float = 5.0  # after which a worker whose event loop does not run is replaced; 0: never
    # After which a worker whose engine does not return from a call is replaced; 0: after four deadlines.
    call_seconds: float = 0.0
    max_body_bytes: int = 6_291_456
    max_answer_bytes: int = 0  # what the services in front carry back; 0: they set no bound
    read_timeout_seconds: float = 30.0  # for a request to arrive whole
    # Longer than a load balancer's idle timeout (60 s), so that it closes first.
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 25.0  # after SIGTERM; less than ECS's and SageMaker's 30 s
    nan: str = "allow"
    contracts: str = "predictive"  # groups of routes.json that are open, separated by commas
    trust_code: bool = False
    # SageMaker is in front: a header names the route, and callers cannot reach the server.
    tunnel: bool = False
    api_auth: str = ""  # how callers of the API in front show who they are: api-key, iam; empty: not at all
    log_level: str = "info"

    @property
    def groups(self) -> tuple[str, ...]:
        """The names in `contracts`."""
        return tuple(name for part in self.contracts.split(",") if (name := part.strip()))

    def __post_init__(self) -> None:
        rules = [
            (bool(self.model_name) and "/" not in self.model_name, "model_name", "a name without a slash"),
            (0 <= self.port <= 65535, "port", "0 to 65535"),
            (0 <= self.workers <= 256, "workers", "0 to 256"),
            (0 <= self.threads <= 1024, "threads", "0 to 1024"),
            (self.max_batch_size >= 1, "max_batch_size", "1 or more"),
            (self.max_latency_ms >= 0, "max_latency_ms", "0 or more"),
            (self.max_queue >= 1, "max_queue", "1 or more"),
            (self.target_wait_ms >= 0, "target_wait_ms", "0 or more"),
            (self.deadline_seconds >= 0, "deadline_seconds", "0 or more"),
            (self.stall_seconds == 0 or self.stall_seconds >= 1, "stall_seconds", "0, or 1 or more"),
            (self.call_seconds >= 0, "call_seconds", "0 or more"),
            (self.max_body_bytes >= 1, "max_body_bytes", "1 or more"),
            (self.max_answer_bytes >= 0, "max_answer_bytes", "0 or more"),
            (self.read_timeout_seconds > 0, "read_timeout_seconds", "more than 0"),
            (self.keep_alive_seconds > 0, "keep_alive_seconds", "more than 0"),
            (self.drain_seconds >= 0, "drain_seconds", "0 or more"),
            (self.nan in ("allow", "refuse"), "nan", "allow, refuse"),
            (
                bool(self.groups) and set(self.groups) <= set(CONTRACTS),
                "contracts",
                f"{', '.join(CONTRACTS)}; several are separated by commas",
            ),
            (self.api_auth in ("", "api-key", "iam"), "api_auth", "api-key, iam"),
            (self.log_level in LOG_LEVELS, "log_level", ", ".join(LOG_LEVELS)),
            (
                not self.model_uri or _is_s3_object(self.model_uri),
                "model_uri",
                "s3://bucket/key.tar.gz[?versionId=...]",
            ),
            (
                not self.model_sha256 or _is_sha256(self.model_sha256),
                "model_sha256",
                "64 lower-case hex digits",
            ),
        ]
        for holds, name, allowed in rules:
            if not holds:
                raise ModelRefusedError(_complaint(name, getattr(self, name), allowed))


LOG_LEVELS = ("debug", "info", "warning", "error")


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Reads MODEL_SERVER_*. An unknown name is refused, so that a misspelled one is not ignored."""
    known = {PREFIX + field.name.upper(): field for field in fields(Settings)}
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise ModelRefusedError(
            f"{unknown[0]} is not a setting of the model server; allowed: {', '.join(sorted(known))}"
        )
    if not environment.get(PREFIX + "MODEL_NAME"):
        raise ModelRefusedError("MODEL_SERVER_MODEL_NAME is not set; set it to the name in /v2/models/{name}")
    values: dict[str, Any] = {
        field.name: _parse(field.name, str(field.type), environment[variable])
        for variable, field in known.items()
        if environment.get(variable)
    }
    if environment.get("SAGEMAKER_BIND_TO_PORT"):
        values["port"] = _parse("port", "int", environment["SAGEMAKER_BIND_TO_PORT"])
    return Settings(**values)


def available_cores() -> int:
    """Cores that this process may use: the CPU affinity, and the container's CPU quota where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def _parse(name: str, kind: str, text: str) -> Any:
    text = text.strip()
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "Path":
            return Path(text)
        return {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError):
        allowed = {"bool": "true, false", "int": "a whole number", "float": "a number"}[kind]
        raise ModelRefusedError(_complaint(name, text, allowed)) from None


def _complaint(name: str, got: object, allowed: str) -> str:
    return f"{PREFIX}{name.upper()} is {str(got)!r}; allowed: {allowed}"


def _is_s3_object(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme == "s3" and bool(parts.netloc) and len(parts.path) > 1


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
