"""Why a replica died is what it wrote last, whatever a health check finds afterwards."""

from __future__ import annotations

from pathlib import Path

from modelstacks.cloud.host.replicas import Replica


def test_a_health_check_of_a_dead_replica_does_not_replace_its_last_words(tmp_path: Path) -> None:
    replica = Replica(kind="ecs-task", workload="w", log_group="g", log_stream="s", log=tmp_path / "log")
    replica.state, replica.reason = "failed", "exited with code 3: the model file is broken"
    replica.ended.set()
    replica.observed("GET /ping: connection refused")
    assert replica.reason == "exited with code 3: the model file is broken"
