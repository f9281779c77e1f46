"""The sizes of tasks that Fargate offers, as cfn-lint's data states them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from modelstacks.cloud.cloudformation.schema_keywords import validator_class
from modelstacks.cloud.cloudformation.schemas import folder

__all__ = ["is_fargate_size"]


def is_fargate_size(cpu: str, memory: str) -> bool:
    """Whether Fargate has tasks of this CPU and memory, by cfn-lint's copy of the developer guide's table."""
    task = {
        "RequiresCompatibilities": ["FARGATE"],
        "Cpu": cpu,
        "Memory": int(memory) if memory.isdecimal() else memory,
    }
    return bool(_fargate_sizes().is_valid(task))


@cache
def _fargate_sizes() -> Any:
    path = folder() / "extensions" / "aws_ecs_taskdefinition" / "fargate_cpu_memory.json"
    return validator_class()(json.loads(path.read_text()))
