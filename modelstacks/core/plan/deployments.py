"""Which specs are meant, and the Plans that they and their locks make. app.py and the CLI start here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelstacks.core.errors import Fault, LockInvalid, SpecInvalid, UsageError, did_you_mean, relative
from modelstacks.core.lock import Lock, lock_path, model_digest, read_lock
from modelstacks.core.model import ArtifactModel
from modelstacks.core.plan import Plan, Selection, make_plan
from modelstacks.core.plan.features import refusals
from modelstacks.core.registry import ArtifactSource, sources
from modelstacks.core.spec import Architecture
from modelstacks.core.spec.validation import CheckedSpec, check_specs

__all__ = ["find_specs", "load_plans", "read_current_lock"]

FOLDER = "deployments"
_SUFFIXES = (".yaml", ".yml")


def find_specs(project: Path, selection: str | None = None) -> list[Path]:
    """The spec files meant by `selection`.

    It names files or folders, separated by commas; by default all of deployments/.

    Relative paths start at the working directory, or at the project where nothing is there.

    Raises:
        UsageError: a file does not exist, or a folder has no spec.
    """
    found: list[Path] = []
    for word in (selection or FOLDER).split(","):
        if not word.strip():
            continue
        path = _locate(project, word.strip(), by_default=selection is None)
        specs = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not specs:
            raise UsageError(
                f"{relative(path)} has no spec", allowed="*.yaml", fix="modelstacks init writes one"
            )
        found += [spec for spec in specs if spec not in found]
    if not found:
        raise UsageError(
            "no spec is named", got=f'"{selection}"', fix="name a YAML file, or leave it out for all of them"
        )
    return found


def load_plans(specs: Sequence[Path], architecture: Selection, project: Path) -> list[Plan]:
    """One Plan for each spec and architecture.

    `architecture` "spec" takes each spec's own word, "both" makes two.

    Raises:
        SpecInvalid: faults in any of the specs, what a target cannot do among them.
        LockInvalid: a lock is missing, damaged or stale; every such lock is named.
    """
    checked = check_specs(specs)
    locks: list[Lock] = []
    troubles: list[LockInvalid] = []
    for one in checked:
        try:
            locks.append(read_current_lock(one, project))
        except LockInvalid as error:
            troubles.append(error)
    if len(troubles) == 1:
        raise troubles[0]
    if troubles:
        named = " ".join(trouble.fix.removeprefix(_LOCK_COMMAND) for trouble in troubles)
        raise LockInvalid("\n".join(trouble.what for trouble in troubles), fix=_LOCK_COMMAND + named)

    faults: list[Fault] = []
    plans: list[Plan] = []
    for one, lock in zip(checked, locks, strict=True):
        lock_file = lock_path(one.document.path).resolve()
        if not lock_file.is_relative_to(project.resolve()):
            raise UsageError(
                f"{one.document.file} is outside the project {project}",
                fix="move the spec below the folder of cdk.json: templates name locks by relative paths",
            )
        for each in _architectures(architecture, one.spec.architecture):
            faults += [one.fault(field, reason) for field, reason in refusals(one.spec, each, lock)]
            plans.append(make_plan(one.spec, lock, lock_file.relative_to(project.resolve()).as_posix(), each))
    if faults:
        raise SpecInvalid(faults)
    return plans


def read_current_lock(checked: CheckedSpec, project: Path) -> Lock:
    """A spec's lock, if it still is one.

    Raises:
        LockInvalid: it is missing, damaged, or was made for another `model` block or other bytes.
    """
    spec, path = checked.spec, lock_path(checked.document.path)
    fix = _LOCK_COMMAND + checked.document.file
    lock = read_lock(path, fix)
    source = sources()[spec.model.source]
    if lock.model_digest != model_digest(spec):
        raise LockInvalid(
            f"{relative(path)}: stale: the spec's model block has changed since it was locked", fix=fix
        )
    if source.kind != lock.model.kind:
        raise LockInvalid(f"{relative(path)}: the lock file was written by another version", fix=fix)
    if (
        isinstance(source, ArtifactSource)
        and isinstance(lock.model, ArtifactModel)
        and (reason := source.drift(spec.model, lock.model, project))
    ):
        raise LockInvalid(f"{relative(path)}: stale: {reason} since it was locked", fix=fix)
    return lock


_LOCK_COMMAND = "modelstacks lock "


def _architectures(selection: Selection, written: Architecture) -> tuple[Architecture, ...]:
    if selection == "both":
        return ("self-hosted", "managed")
    return (written,) if selection == "spec" else (selection,)


def _locate(project: Path, word: str, *, by_default: bool) -> Path:
    for path in (Path(word), project / word):
        if path.exists() and not (by_default and path == Path(word)):
            return path
    folder = project / FOLDER
    known = (
        [relative(path) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES]
        if folder.is_dir()
        else []
    )
    near = did_you_mean(word, known) or next(
        (f'did you mean "{path}"?' for path in known if Path(path).stem == Path(word).stem), ""
    )
    raise UsageError(f"{word} does not exist", fix=near or "modelstacks init writes a spec to start from")
