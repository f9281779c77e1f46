"""Writes verdicts as evidence: the requests, the answers, the deployment, and the time."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelstacks import __version__
from modelstacks.core.errors import EnvironmentFault, relative
from modelstacks.core.model import ArtifactModel, Model
from modelstacks.core.plan import Plan
from modelstacks.verification.checks import Check
from modelstacks.verification.verdict import Verdict

__all__ = ["Finding", "report", "write"]

Finding = tuple[Check, Verdict]


def report(
    plan: Plan, place: Mapping[str, str], findings: Sequence[Finding], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one deployment's verdicts, and its account's description of its resources, as JSON."""
    return {
        "name": plan.name,
        "architecture": plan.architecture,
        "stack": plan.stack_name,
        "place": dict(place),
        **_model(plan.model),
        "passed": not any(verdict.failed for _, verdict in findings),
        "verdicts": [
            {"check": check.name, "settles": check.settles, **asdict(verdict)} for check, verdict in findings
        ],
        "resources": dict(facts),
    }


def _model(model: Model) -> dict[str, str]:
    if isinstance(model, ArtifactModel):
        return {"model_revision": model.revision, "archive_sha256": model.archive.sha256}
    return {"model_provider": model.provider, "model_id": model.model_id}


def write(path: Path, reports: Sequence[Mapping[str, Any]], accounts: Collection[str] = ()) -> None:
    """Write the reports. Raises EnvironmentFault if the file cannot be written.

    Of an AWS account's id only the last four digits are kept, wherever it occurs: a record may be published.
    """
    document = {
        "modelstacks": __version__,
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "deployments": list(reports),
    }
    text = json.dumps(document, indent=2, default=str) + "\n"
    for account in accounts:
        text = text.replace(account, "*" * 8 + account[-4:])
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{relative(path)} cannot be written: {error.strerror}") from None
