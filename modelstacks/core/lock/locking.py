"""`modelstacks lock`: every fact that can change, found once and written down.

remote source:    resolve -> write
artifact source:  resolve -> settle the licence -> pack -> judge what was packed -> load it -> write

What is judged, scanned and loaded is the unpacked archive: its bytes are those that were pinned, nothing can
change them between a look and a load, and a file that was left out by mistake is missed here, not in AWS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelstacks.core.artifact.formats import Detected, detect
from modelstacks.core.artifact.packaging import keep_archive, make_archive, workplace
from modelstacks.core.artifact.scripts import missing_requirements
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.engines import engine_facts
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError, relative
from modelstacks.core.lock import Lock, lock_path, model_digest, seal, write_lock
from modelstacks.core.lock.licences import settle
from modelstacks.core.lock.versions import judge_version
from modelstacks.core.model import Archive, ArtifactModel, Model
from modelstacks.core.plan.runtime import image_arguments
from modelstacks.core.ports import Inspection, Ports
from modelstacks.core.registry import ArtifactSource, Pinned, RemoteSource, Workplace, sources
from modelstacks.core.spec import Spec
from modelstacks.core.spec.validation import check_specs

__all__ = ["LockOutcome", "lock"]


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What `lock` did."""

    path: Path
    lock: Lock
    # False where the file already said all this.
    changed: bool
    warnings: tuple[str, ...] = ()


def lock(
    spec_path: Path, project: Path, ports: Ports, *, report: Callable[[str], None] = lambda _: None
) -> LockOutcome:
    """Pin one spec's model and write the lock beside it.

    Args:
        report: called with each step in a few words, before it begins.

    Raises:
        SpecInvalid: the spec has faults.
        UsageError: the model cannot be fetched, identified or loaded, or its licence is not settled.
        EnvironmentFault: a hub, S3 or a secret cannot be reached, or the disk is full.
    """
    (checked,) = check_specs([spec_path])
    spec = checked.spec
    with workplace(project, ports) as place:
        job = _Job(spec, spec_path, place, report)
        model = job.pin()
    content = seal(Lock(spec=spec_path.name, model_digest=model_digest(spec), model=model))
    path = lock_path(spec_path)
    return LockOutcome(path, content, write_lock(path, content), tuple(job.warnings))


@dataclass(slots=True)
class _Job:
    """One spec's way through the pipeline, and the warnings that it collects."""

    spec: Spec
    spec_path: Path
    place: Workplace
    report: Callable[[str], None]
    warnings: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """How a message names the model."""
        block = self.spec.model
        return str(getattr(block, "path", None) or getattr(block, "id", None) or block.source)

    def pin(self) -> Model:
        """The model, by the steps that its kind of source needs."""
        source = sources()[self.spec.model.source]
        self.report(f"resolving the model from {source.name}")
        match source:
            case RemoteSource():
                return source.resolve(self.spec.model, self.place)
            case ArtifactSource():
                return self._artifact(source.name, source.resolve(self.spec.model, self.place))
        raise TypeError(f"{source.name} is neither an ArtifactSource nor a RemoteSource")

    def _artifact(self, source: str, pinned: Pinned) -> ArtifactModel:
        license, license_from = settle(self.spec.model.license, pinned.license)
        with self._packed(pinned) as (archive, served):
            if pinned.vendor is None:
                detected = self._judged(pinned, served)
                inspection, trust_code = self._loaded(pinned, served, detected), bool(detected.executables)
            else:
                self._refuse_version("the vendor's image", ())
                inspection, trust_code = pinned.vendor.serving, False
        return ArtifactModel(
            source=source,
            revision=pinned.revision,
            origin=dict(sorted(pinned.origin.items())),
            files=pinned.files,
            archive=archive,
            framework=inspection.framework,
            framework_version=inspection.framework_version,
            framework_series=self.spec.model.framework_version or "",
            engine=inspection.engine,
            image=pinned.vendor.image if pinned.vendor else None,
            task=inspection.task,
            signature=inspection.signature,
            license=license,
            license_from=license_from,
            gated=pinned.gated,
            trust_code=trust_code,
        )

    @contextmanager
    def _packed(self, pinned: Pinned) -> Iterator[tuple[Archive, Path]]:
        """The archive, and a folder with what it holds; the archive is kept where the block succeeds."""
        made, sha256, size = make_archive(pinned.directory, pinned.files, self.place.project)
        try:
            served = self.place.work / ".served"
            served.mkdir()
            unpack(made, served, where=self.where)
            yield Archive(sha256=sha256, size=size), served
        except BaseException:
            made.unlink(missing_ok=True)
            raise
        keep_archive(made, sha256, self.place.project)

    def _judged(self, pinned: Pinned, served: Path) -> Detected:
        """What the files are. Nothing of a model runs unless the spec says so, not even to look at it."""
        paths = [file.path for file in pinned.files]
        detected = detect(served, paths, where=self.where)
        self._refuse_version(f"the {detected.engine} engine", engine_facts(detected.engine).older_series)
        if detected.executables and not self.spec.model.trust_code:
            raise UsageError(
                f"{self.where}: this model runs code when it is loaded: {'; '.join(detected.executables)}",
                fix="use a format that is only data (skops, ONNX, safetensors, XGBoost JSON) and leave other "
                "files out with model.include; or, if you trust whoever made it, set model.trust_code: true",
            )
        self._warn(missing_requirements(served, paths, detected.scripts))
        self._refuse_hidden_code(served, detected)
        return detected

    def _refuse_version(self, what: str, known: Collection[str]) -> None:
        """Only releases that the image has pins for can be built."""
        wanted = self.spec.model.framework_version
        if wanted is not None and wanted not in known:
            raise UsageError(
                f"{self.where}: {what} cannot be built with this version",
                got=f"model.framework_version: {wanted}",
                allowed=", ".join(known) or f"none: {what} has one version",
                fix="leave model.framework_version out to take the image's own",
            )

    def _refuse_hidden_code(self, served: Path, detected: Detected) -> None:
        if not detected.to_scan:
            return
        self.report("scanning it for hidden code")
        findings = self.place.ports.scanner.scan(served, detected.to_scan)
        if findings:
            raise UsageError(
                f"{self.where}: loading it would run code that no model needs: {'; '.join(findings[:20])}",
                fix="do not load it; ask whoever made it for a safe format",
            )

    def _loaded(self, pinned: Pinned, served: Path, detected: Detected) -> Inspection:
        """What the engine says of the model, once it has loaded it in the image that will serve it."""
        self.report(f"loading it in the {detected.engine} engine")
        image = image_arguments(
            detected.engine,
            [file.path for file in pinned.files],
            self.spec.model.framework_version or "",
        )
        try:
            inspection = self.place.ports.inspector.inspect(
                served, detected.engine, image=image, trust_code=bool(detected.executables)
            )
        except SignatureNeeded as error:
            raise _with_skeleton(error, self.spec_path) from None
        if pinned.task is not None and inspection.task != pinned.task:
            raise UsageError(
                f"{self.where}: the source says it is for {pinned.task}, the engine serves {inspection.task}",
                fix=f"set model.task: {inspection.task}, or choose another model",
            )
        if inspection.engine != detected.engine:
            raise UsageError(f"{self.where}: looks like {detected.engine}, but loads in {inspection.engine}")
        served_with = inspection.framework_version
        self._warn(judge_version(inspection.framework, inspection.saved_with, served_with))
        return inspection

    def _warn(self, warning: str) -> None:
        if warning:
            self.report(f"warning: {warning}")
            self.warnings.append(warning)


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
