"""The spec: what a user writes, and how a YAML file becomes one or a list of faults."""

from modelstacks.core.spec.blocks import (
    Api,
    Architecture,
    Aws,
    Logs,
    Network,
    Quota,
    Scaling,
    SourceSpec,
    Spec,
    TargetSpec,
    Throttle,
    subnet_index,
)

__all__ = [
    "Api",
    "Architecture",
    "Aws",
    "Logs",
    "Network",
    "Quota",
    "Scaling",
    "SourceSpec",
    "Spec",
    "TargetSpec",
    "Throttle",
    "subnet_index",
]
