"""The lock: every fact that can change, found by `modelstacks lock` and pinned in a file."""

from modelstacks.core.lock.file import (
    Lock,
    lock_path,
    model_digest,
    read_lock,
    seal,
    write_lock,
)

__all__ = [
    "Lock",
    "lock_path",
    "model_digest",
    "read_lock",
    "seal",
    "write_lock",
]
