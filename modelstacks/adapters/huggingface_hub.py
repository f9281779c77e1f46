"""The ModelHub port: the Hugging Face Hub through huggingface_hub; HF_ENDPOINT, HF_HOME, HF_TOKEN count."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelstacks.core.errors import EnvironmentFault, UsageError
from modelstacks.core.ports import HubFile, HubModel

__all__ = ["HuggingFaceHub"]

PUBLIC_ENDPOINT = "https://huggingface.co"


class HuggingFaceHub:
    """Looks up repositories and downloads files of one commit through the Hub's cache on this machine.

    Without a token, huggingface_hub's own is used: HF_TOKEN, or the one that `hf auth login` saved.
    """

    def __init__(self, endpoint: str = "", cache: Path | None = None) -> None:
        self._endpoint, self._cache = endpoint, cache

    @property
    def endpoint(self) -> str:
        """Where the hub is; huggingface_hub itself reads HF_ENDPOINT only when it is imported."""
        return (self._endpoint or os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/")

    def model(self, id: str, revision: str, token: str | None) -> HubModel:
        """A repository at the commit that `revision` (branch, tag or commit) names now; renames are followed.

        Raises:
            UsageError: the hub has no such repository or revision, or does not show it to this token.
            EnvironmentFault: the hub cannot be reached, or fails.
        """
        hub = _library()
        with self._errors(id, revision):
            info = hub.HfApi(endpoint=self.endpoint).model_info(
                id, revision=revision, files_metadata=True, token=token
            )
        files = [
            HubFile(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else None)
            for item in info.siblings or ()
        ]
        return HubModel(
            id=info.id,
            commit=info.sha,
            files=tuple(sorted(files, key=lambda file: file.path)),
            license=_license(info),
            gated=bool(info.gated),
            pipeline_tag=info.pipeline_tag,
        )

    def download(self, id: str, commit: str, path: str, destination: Path, token: str | None) -> None:
        """Download one file of one commit. An interrupted download is resumed."""
        hub = _library()
        with self._errors(id, commit):
            cached = hub.hf_hub_download(
                id, path, revision=commit, endpoint=self.endpoint, token=token, cache_dir=self._cache
            )
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.unlink(missing_ok=True)
        real = Path(cached).resolve()
        try:
            # Weights are large, and a copy would be read only once.
            destination.hardlink_to(real)
        except OSError:  # another disk, or one without links
            shutil.copyfile(real, destination)

    @contextmanager
    def _errors(self, id: str, revision: str) -> Iterator[None]:
        """Turns huggingface_hub's errors into ours. No message repeats the token."""
        from huggingface_hub import errors

        page = f"{self.endpoint}/{id}"
        try:
            yield
        except errors.GatedRepoError:
            raise UsageError(
                f"{id} is gated, and this token (or none) has no access to the repository's files",
                fix=f"accept its terms at {page}, then use a token with read access: "
                "model.token: {secret: NAME} in the spec, or HF_TOKEN",
            ) from None
        except errors.RepositoryNotFoundError:
            raise UsageError(
                f"there is no model {id} at {self.endpoint}, or it is private",
                fix="check model.id; a private model needs a token: model.token: {secret: NAME}, or HF_TOKEN",
            ) from None
        except errors.RevisionNotFoundError:
            raise UsageError(
                f"{id} has no revision {revision}", fix=f"choose one of {page}/commits, or main"
            ) from None
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                raise self._unreachable(error.__cause__ or error) from None
            raise UsageError(f"{id} no longer has a file that it listed: {_first_line(error)}") from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise UsageError(
                    f"the hub refused the token for {id} ({status})",
                    fix=f"renew it at {self.endpoint}/settings/tokens, with read access to this model",
                ) from None
            raise EnvironmentFault(
                f"the hub at {self.endpoint} answered {status} for {id}", fix="try again later"
            ) from None
        except errors.HFValidationError as error:
            raise UsageError(f"not a valid model id for a hub: {_first_line(error)}") from None
        except Exception as error:
            if isinstance(error, OSError | errors.OfflineModeIsEnabled) or _is_transport_error(error):
                raise self._unreachable(error) from None
            raise

    def _unreachable(self, error: BaseException) -> EnvironmentFault:
        return EnvironmentFault(
            f"the hub at {self.endpoint} cannot be reached: {_first_line(error)}",
            fix="check the network, and HF_ENDPOINT if it is set",
        )


def _library() -> Any:
    """huggingface_hub without its progress bars, which would interfere with our own output."""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return huggingface_hub


def _license(info: Any) -> str | None:
    """The licence that the card states; None where it names several."""
    named = info.card_data.get("license") if info.card_data else None
    if named is None:
        named = next(
            (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None
        )
    return named if isinstance(named, str) else None


def _is_transport_error(error: Exception) -> bool:
    """Whether the error comes from the HTTP library that huggingface_hub uses."""
    return any(kind.__name__ in ("TransportError", "HTTPError") for kind in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
