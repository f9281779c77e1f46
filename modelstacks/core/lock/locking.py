"""`modelstacks lock`: every fact that could move, found once and written down.

resolve (the source) -> identify (formats) -> scan, if it is a pickle -> settle the licence -> load it in its
engine (the inspector port) -> archive -> look up AWS's images -> write the lock, if anything has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelstacks.core.artifact.formats import Detected, detect
from modelstacks.core.artifact.packaging import keep_archive, make_archive, workplace
from modelstacks.core.artifact.scripts import missing_requirements
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.contract import OLDER_VERSIONS
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError, relative
from modelstacks.core.lock import Archive, Lock, LockedModel, lock_path, model_digest, seal, write_lock
from modelstacks.core.lock.licences import settle
from modelstacks.core.lock.versions import judge_version
from modelstacks.core.ports import Inspection, Ports
from modelstacks.core.registry import Pinned, sources
from modelstacks.core.spec import Spec
from modelstacks.core.spec.validation import check_specs

__all__ = ["LockOutcome", "lock"]


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What `lock` did."""

    path: Path
    lock: Lock
    changed: bool  # False where the file already said all this
    warnings: tuple[str, ...] = ()


def lock(
    spec_path: Path, project: Path, ports: Ports, *, report: Callable[[str], None] = lambda _: None
) -> LockOutcome:
    """Pin one spec's model and write the lock beside it.

    Args:
        report: is told each step in a few words, before it begins.

    Raises:
        SpecInvalid: the spec has faults.
        UsageError: the model cannot be had, identified, loaded, or its licence is not settled.
        EnvironmentFault: a hub, S3 or a secret cannot be reached, or the disk is full.
    """
    (checked,) = check_specs([spec_path])
    spec = checked.spec
    source = sources()[spec.model.source]
    with workplace(project, ports) as place:
        report(f"resolving the model from {source.name}")
        pinned = source.resolve(spec.model, place)
        detected = detect(pinned.directory, [file.path for file in pinned.files], where=_where(spec))
        _refuse_unknown_version(spec, detected.engine)
        _refuse_untrusted_code(spec, detected)
        warnings = _warn(detected, pinned, report)
        license, license_from = settle(spec.model.license, pinned.license)  # noqa: A001  the field's own name

        made, sha256, size = make_archive(pinned.directory, pinned.files, project)
        try:
            served = _unpacked(spec, made, place.work)
            detected = _judged_again(spec, served, pinned, detected)
            _refuse_hidden_code(spec, served, detected, ports, report)
            report(f"loading it in the {detected.engine} engine")
            try:
                inspection = _inspect(spec, detected, served, pinned.task, ports)
            except SignatureNeeded as error:
                raise _with_skeleton(error, spec_path) from None
            warnings += _warn_of_version(inspection, report)
            report("looking up AWS's images")
            images = ports.images.serving_images(inspection.framework, inspection.framework_version)
            keep_archive(made, sha256, project)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    content = seal(
        Lock(
            spec=spec_path.name,
            model_digest=model_digest(spec),
            model=LockedModel(
                source=source.name,
                revision=pinned.revision,
                origin=dict(sorted(pinned.origin.items())),
                files=pinned.files,
                archive=Archive(sha256=sha256, size=size),
                framework=inspection.framework,
                framework_version=inspection.framework_version,
                engine=inspection.engine,
                task=inspection.task,
                signature=inspection.signature,
                license=license,
                license_from=license_from,
                gated=pinned.gated,
                trust_code=bool(detected.executables),
            ),
            aws_images=dict(sorted(images.items())),
        )
    )
    path = lock_path(spec_path)
    return LockOutcome(path, content, write_lock(path, content), warnings)


def _warn(detected: Detected, pinned: Pinned, report: Callable[[str], None]) -> tuple[str, ...]:
    paths = [file.path for file in pinned.files]
    warning = missing_requirements(pinned.directory, paths, detected.scripts)
    if not warning:
        return ()
    report(f"warning: {warning}")
    return (warning,)


def _warn_of_version(inspection: Inspection, report: Callable[[str], None]) -> tuple[str, ...]:
    warning = judge_version(inspection.framework, inspection.saved_with, inspection.framework_version)
    if not warning:
        return ()
    report(f"warning: {warning}")
    return (warning,)


def _refuse_unknown_version(spec: Spec, engine: str) -> None:
    """Only releases that the image has pins for can be built."""
    known, wanted = OLDER_VERSIONS.get(engine, ()), spec.model.framework_version
    if wanted is not None and wanted not in known:
        raise UsageError(
            f"{_where(spec)}: the {engine} engine cannot be built with this version",
            got=f"model.framework_version: {wanted}",
            allowed=", ".join(known) or f"none: the {engine} engine has one version",
            fix="leave model.framework_version out to take the image's own",
        )


def _refuse_untrusted_code(spec: Spec, detected: Detected) -> None:
    """Nothing of a model runs unless the spec says so, not even to look at the model."""
    if detected.executables and not spec.model.trust_code:
        raise UsageError(
            f"{_where(spec)}: this model runs code when it is loaded: {'; '.join(detected.executables)}",
            fix="use a format that is only data (skops, ONNX, safetensors, XGBoost JSON) and leave other "
            "files out with model.include; or, if you trust whoever made it, set model.trust_code: true",
        )


def _unpacked(spec: Spec, made: Path, work: Path) -> Path:
    """What the archive holds: a file that was left out by mistake is missed here, not in AWS."""
    served = work / ".served"
    served.mkdir()
    unpack(made, served, where=_where(spec))
    return served


def _judged_again(spec: Spec, served: Path, pinned: Pinned, before: Detected) -> Detected:
    """The same judgement on the archive's files, which nothing can change between a look and a load."""
    detected = detect(served, [file.path for file in pinned.files], where=_where(spec))
    _refuse_untrusted_code(spec, detected)
    if detected != before:
        raise UsageError(
            f"{_where(spec)} was changed while it was locked", fix="lock a copy that nothing writes to"
        )
    return detected


def _refuse_hidden_code(
    spec: Spec, served: Path, detected: Detected, ports: Ports, report: Callable[[str], None]
) -> None:
    if not detected.to_scan:
        return
    report("scanning it for hidden code")
    findings = ports.scanner.scan(served, detected.to_scan)
    if findings:
        raise UsageError(
            f"{_where(spec)}: loading it would run code that no model needs: {'; '.join(findings[:20])}",
            fix="do not load it; ask whoever made it for a safe format",
        )


def _inspect(spec: Spec, detected: Detected, served: Path, task: str | None, ports: Ports) -> Inspection:
    inspection = ports.inspector.inspect(
        served,
        detected.engine,
        trust_code=bool(detected.executables),
        framework_version=spec.model.framework_version or "",
    )
    if task is not None and inspection.task != task:
        raise UsageError(
            f"{_where(spec)}: the source says it is for {task}, the engine serves {inspection.task}",
            fix=f"set model.task: {inspection.task}, or choose another model",
        )
    if inspection.engine != detected.engine:
        raise UsageError(f"{_where(spec)}: looks like {detected.engine}, but loads in {inspection.engine}")
    return inspection


def _with_skeleton(error: SignatureNeeded, spec_path: Path) -> UsageError:
    """The refusal, after a signature to correct was written beside the spec."""
    path = spec_path.with_name(spec_path.stem + ".signature.json")
    try:
        path.write_text(json.dumps(error.skeleton, indent=2) + "\n", encoding="utf-8")
    except OSError as fault:
        raise EnvironmentFault(f"{relative(path)} cannot be written: {fault.strerror}") from None
    return UsageError(
        error.what,
        fix=f"correct {relative(path)}, which was written for you, and put it beside the model as "
        "signature.json (docs/signature.md)",
    )


def _where(spec: Spec) -> str:
    where: object = getattr(spec.model, "path", None) or getattr(spec.model, "id", None) or spec.model.source
    return str(where)
