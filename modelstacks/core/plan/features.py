"""What a deployment asks of its source and target beyond the ordinary, and which of them refuse it and why.

The reasons stand in each source's and target's own file as `refuses`; error texts and docs/features.md are
both made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelstacks.core.contract import LAMBDA_BODY
from modelstacks.core.lock import Lock
from modelstacks.core.model import ArtifactModel
from modelstacks.core.registry import FEATURES, Feature, Source, Target, sources, targets
from modelstacks.core.spec import Architecture, Spec
from modelstacks.core.spec.zones import without_vpc_links

__all__ = ["DESCRIPTIONS", "asked", "features_page", "refusals"]

DESCRIPTIONS: Mapping[Feature, str] = {
    "generative": "text generation",
    "large-body": f"server.max_body_bytes above {LAMBDA_BODY}",
    "trusted-code": "model.trust_code: true",
    "quota": "api.quota",
    "script": "an inference.py of your own",
    "zone-without-vpc-links": "zones without VPC links",
}


def asked(spec: Spec, lock: Lock | None = None) -> dict[Feature, str]:
    """The features that a spec, and the model it is locked to, ask for: feature -> the field that asks."""
    found: dict[Feature, str] = {}
    if spec.server.max_body_bytes > LAMBDA_BODY:
        found["large-body"] = "server.max_body_bytes"
    if spec.api.quota is not None:
        found["quota"] = "api.quota"
    if spec.model.trust_code:
        found["trusted-code"] = "model.trust_code"
    if _zones_without_vpc_links(spec):
        found["zone-without-vpc-links"] = "aws.zones"
    if lock is not None and lock.model.task == "text-generation":
        found["generative"] = "model"
    if lock is not None and isinstance(lock.model, ArtifactModel) and lock.model.engine == "script":
        found["script"] = "model"
    return found


def refusals(spec: Spec, architecture: Architecture, lock: Lock | None = None) -> Iterator[tuple[str, str]]:
    """Each feature asked for that cannot be had on one architecture: (field, reason)."""
    source = sources()[spec.model.source]
    target = targets()[spec.target(architecture).target]
    for feature, where in asked(spec, lock).items():
        for refuser in (source, target):
            if feature in refuser.refuses:
                what = DESCRIPTIONS[feature]
                if feature == "zone-without-vpc-links":
                    what += f" ({', '.join(_zones_without_vpc_links(spec))})"
                yield where, f"{refuser.name} cannot serve {what}: {refuser.refuses[feature]}"


def _zones_without_vpc_links(spec: Spec) -> list[str]:
    return without_vpc_links(spec.aws.region, spec.aws.zones or ()) if spec.aws else []


def features_page() -> str:
    """docs/features.md: the table of sources and targets by features, with a reason for each "no"."""
    rows: list[Source | Target] = [*sources().values(), *targets().values()]
    reasons: list[str] = []
    lines = [
        "# What goes with what",
        "",
        "Made from the declarations in `modelstacks/sources/` and `modelstacks/targets/` by",
        "`python -m modelstacks.core.reference`; a test keeps it in step.",
        "",
        "Every source goes with every target, except where a feature is refused below.",
        "The same reason is what `modelstacks validate` and `cdk synth` print.",
        "",
        "| feature | asked for by | " + " | ".join(f"`{row.name}`" for row in rows) + " |",
        "|---" * (len(rows) + 2) + "|",
    ]
    for feature in FEATURES:
        cells = []
        for row in rows:
            if feature in row.refuses:
                reasons.append(f"{len(reasons) + 1}. `{row.name}`, {feature}: {row.refuses[feature]}")
                cells.append(f"no ({len(reasons)})")
            else:
                cells.append("yes")
        lines.append(f"| {feature} | {DESCRIPTIONS[feature]} | " + " | ".join(cells) + " |")
    if reasons:
        lines += ["", "Reasons:", "", *reasons]
    lines += ["", "## Sources", ""]
    lines += [f"- [`{s.name}`](sources/{s.name}.md): {s.summary}" for s in sources().values()]
    lines += ["", "## Targets", ""]
    lines += [
        f"- [`{t.name}`](targets/{t.name}.md) ({t.architecture}): {t.summary}" for t in targets().values()
    ]
    return "\n".join(lines) + "\n"
