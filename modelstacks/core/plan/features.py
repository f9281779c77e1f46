"""The optional features of a deployment, and which combinations are refused, with the reasons.

A combination is a kind of model, a contract, a target and a feature. The reasons are in `refuses` of each
source and target; the error messages and docs/features.md are both made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from modelstacks.core.contract import LAMBDA_BODY, groups
from modelstacks.core.lock import Lock
from modelstacks.core.model import MODEL_KINDS, ArtifactModel, ModelKind
from modelstacks.core.plan.contracts import contracts
from modelstacks.core.registry import Refusal, Source, Target, sources, targets
from modelstacks.core.spec import Architecture, Spec
from modelstacks.core.spec.zones import without_vpc_links

__all__ = ["FEATURES", "Feature", "asked", "features_page", "refusals", "refused"]


def _nothing(_: Spec) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a spec, or the model in its lock, can ask for.

    Args:
        name: what `refuses` and the table call it.
        description: what a message calls it.
        field: the field of the spec that asks for it, dotted.
        asked: whether a spec and its lock ask for it; without a lock, what the spec alone says.
        kinds: the kinds of model that can ask for it.
        detail: what exactly this spec asks for, for a message.
    """

    name: str
    description: str
    field: str
    asked: Callable[[Spec, Lock | None], bool]
    kinds: tuple[ModelKind, ...] = MODEL_KINDS
    detail: Callable[[Spec], str] = _nothing


def _artifact(lock: Lock | None) -> ArtifactModel | None:
    return lock.model if lock is not None and isinstance(lock.model, ArtifactModel) else None


def _from_vendor(_: Spec, lock: Lock | None) -> bool:
    model = _artifact(lock)
    return model is not None and model.image is not None


def _is_script(_: Spec, lock: Lock | None) -> bool:
    model = _artifact(lock)
    return model is not None and model.engine == "script"


def _zones_without_vpc_links(spec: Spec) -> list[str]:
    return without_vpc_links(spec.aws.region, spec.aws.zones or ()) if spec.aws else []


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(
            "generative",
            "text generation",
            "model",
            lambda _, lock: lock is not None and lock.model.task == "text-generation",
        ),
        Feature(
            "large-body",
            f"server.max_body_bytes above {LAMBDA_BODY}",
            "server.max_body_bytes",
            lambda spec, _: spec.server.max_body_bytes > LAMBDA_BODY,
        ),
        Feature("quota", "api.quota", "api.quota", lambda spec, _: spec.api.quota is not None),
        Feature(
            "scale-to-zero",
            "scaling.min_replicas: 0",
            "scaling.min_replicas",
            lambda spec, _: spec.scaling.min_replicas == 0,
        ),
        Feature("script", "an inference.py", "model", _is_script, kinds=("artifact",)),
        Feature(
            "trusted-code",
            "model.trust_code: true",
            "model.trust_code",
            lambda spec, _: spec.model.trust_code,
            kinds=("artifact",),
        ),
        Feature(
            "vendor-image", "a model that a vendor's image serves", "model", _from_vendor, kinds=("artifact",)
        ),
        Feature(
            "zone-without-vpc-links",
            "zones without VPC links",
            "aws.zones",
            lambda spec, _: bool(_zones_without_vpc_links(spec)),
            detail=lambda spec: ", ".join(_zones_without_vpc_links(spec)),
        ),
    )
}


def asked(spec: Spec, lock: Lock | None = None) -> list[Feature]:
    """Return the features that a spec and the model in its lock ask for."""
    return [feature for feature in FEATURES.values() if feature.asked(spec, lock)]


def refusals(spec: Spec, architecture: Architecture, lock: Lock | None = None) -> Iterator[tuple[str, str]]:
    """Yield each reason why a spec cannot be deployed on one architecture: (field, message)."""
    target = targets()[spec.target(architecture).target]
    return refused(sources()[spec.model.source], target, spec, lock)


def refused(
    source: Source, target: Target, spec: Spec, lock: Lock | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each reason why this source and this target do not support a spec: (field, message)."""
    features = {feature.name for feature in asked(spec, lock)}
    chosen = contracts(lock.model) if lock is not None else ()
    for declarer in (source, target):
        for refusal in declarer.refuses:
            if _applies(refusal, source, target, chosen, features):
                what = _what(refusal, spec)
                yield (
                    _field(refusal, target.architecture),
                    f"{declarer.name} does not support {what}: {refusal.reason}",
                )


def _applies(
    refusal: Refusal, source: Source, target: Target, chosen: Collection[str], features: Collection[str]
) -> bool:
    return (
        refusal.source_kind in ("", source.kind)
        and refusal.source in ("", source.name)
        and refusal.target in ("", target.name)
        and (not refusal.contract or refusal.contract in chosen)
        and (not refusal.feature or refusal.feature in features)
    )


def _what(refusal: Refusal, spec: Spec | None = None) -> str:
    """Return the refused combination in words."""
    parts = []
    if refusal.feature:
        feature = FEATURES[refusal.feature]
        detail = feature.detail(spec) if spec is not None else ""
        parts.append(feature.description + (f" ({detail})" if detail else ""))
    if refusal.contract:
        parts.append(f"the {refusal.contract} routes")
    if refusal.source_kind:
        parts.append(_KINDS[refusal.source_kind])
    if refusal.source:
        parts.append(f"source: {refusal.source}")
    if refusal.target:
        parts.append(f"target: {refusal.target}")
    return " with ".join(parts)


_KINDS: dict[str, str] = {
    "artifact": "a model made of files",
    "remote": "a model that its provider hosts",
}


def _field(refusal: Refusal, architecture: Architecture) -> str:
    """Return the field of the spec that has to change."""
    if refusal.feature:
        return FEATURES[refusal.feature].field
    if refusal.source_kind or refusal.source:
        return "model.source"
    return "model" if refusal.contract else architecture


# docs/features.md ------------------------------------------------------------------------------------------


def features_page() -> str:
    """Return docs/features.md: the supported combinations, with a reason for each "no"."""
    reasons: list[str] = []
    lines = [
        "# Supported combinations",
        "",
        "This page is generated from the declarations in `modelstacks/sources/` and `modelstacks/targets/`",
        "by `python -m modelstacks.core.reference`; a test keeps it up to date.",
        "",
        "There is one table for each kind of model and each contract (a group of routes). Its first row is",
        "a deployment without any of these features. `modelstacks validate` and `cdk synth` print the same",
        "reasons.",
        "",
        "| feature | requested by | field |",
        "|---|---|---|",
        *(f"| {one.name} | {one.description} | `{one.field}` |" for one in FEATURES.values()),
    ]
    for kind in MODEL_KINDS:
        for contract, about in groups().items():
            lines += ["", f"## {_KINDS[kind].capitalize()}, {contract}", "", f"{contract}: {about}.", ""]
            lines += _table(kind, contract, reasons)
    lines += ["", "## Reasons", "", *(f"{number}. {text}" for number, text in enumerate(reasons, 1))]
    lines += ["", "## Sources", ""]
    lines += [f"- [`{s.name}`](sources/{s.name}.md) ({s.kind}): {s.summary}" for s in sources().values()]
    lines += ["", "## Targets", ""]
    lines += [_target_entry(target) for target in targets().values()]
    lines += ["", "## Defaults of the targets, with reasons", ""]
    for target in targets().values():
        lines += [f"`{target.name}`:", ""]
        lines += [f"- `{field}`: {value}. {why}" for field, value, why in _defaults(target)]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _table(kind: ModelKind, contract: str, reasons: list[str]) -> Iterator[str]:
    """Yield the lines of a table: features by sources of this kind and targets."""
    columns: list[Source | Target] = [one for one in sources().values() if one.kind == kind]
    columns += targets().values()
    yield "| | " + " | ".join(f"`{column.name}`" for column in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for feature in ("", *(one.name for one in FEATURES.values() if kind in one.kinds)):
        cells = [_cell(column, kind, contract, feature, reasons) for column in columns]
        yield f"| {feature or 'none'} | " + " | ".join(cells) + " |"


def _cell(declarer: Source | Target, kind: str, contract: str, feature: str, reasons: list[str]) -> str:
    notes = []
    for refusal in declarer.refuses:
        fits = (
            refusal.source_kind in ("", kind)
            and refusal.contract in ("", contract)
            and refusal.feature in ("", feature)
        )
        if not fits:
            continue
        text = f"`{declarer.name}`, {_what(refusal)}: {refusal.reason}"
        if text not in reasons:
            reasons.append(text)
        narrowed = refusal.source or refusal.target
        notes.append(f"{f'with {narrowed} ' if narrowed else ''}({reasons.index(text) + 1})")
    return f"no {', '.join(notes)}" if notes else "yes"


def _target_entry(target: Target) -> str:
    default = ", the default" if target.default else ""
    return f"- [`{target.name}`](targets/{target.name}.md) ({target.architecture}{default}): {target.summary}"


def _defaults(target: Target) -> Iterator[tuple[str, object, str]]:
    for field, why in target.reasons.items():
        value = target.spec.model_fields[field].default
        yield field, "unset" if value is None else value, why
