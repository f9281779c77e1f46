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
    """Looks repositories up and fetches files of one commit, by way of the Hub's cache on this machine.

    A token that is not given is the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.
    """

    def __init__(self, endpoint: str = "", cache: Path | None = None) -> None:
        self._endpoint, self._cache = endpoint, cache

    @property
    def endpoint(self) -> str:
        """Where the hub is; huggingface_hub itself reads HF_ENDPOINT only when it is imported."""
        return (self._endpoint or os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/")

    def model(self, id: str, revision: str, token: str | None) -> HubModel:  # noqa: A002  the hub's own word
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

    def download(self, id: str, commit: str, path: str, destination: Path, token: str | None) -> None:  # noqa: A002
        """Fetch one file of one commit. A download that breaks off is taken up again where it stopped."""
        hub = _library()
        with self._errors(id, commit):
            cached = hub.hf_hub_download(
                id, path, revision=commit, endpoint=self.endpoint, token=token, cache_dir=self._cache
            )
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.unlink(missing_ok=True)
        real = Path(cached).resolve()
        try:
            destination.hardlink_to(real)  # weights are large; the copy would be read once and thrown away
        except OSError:  # another disk, or one without links
            shutil.copyfile(real, destination)

    @contextmanager
    def _errors(self, id: str, revision: str) -> Iterator[None]:  # noqa: A002
        """huggingface_hub's many ways to fail, in a user's words. None of them repeats the token."""
        from huggingface_hub import errors

        page = f"{self.endpoint}/{id}"
        try:
            yield
        except errors.GatedRepoError:
            raise UsageError(
                f"{id} is gated, and the hub does not let this token (or no token) at its files",
                fix=f"accept its terms at {page}, then give a token that may read it: "
                "model.token: {secret: NAME} in the spec, or HF_TOKEN",
            ) from None
        except errors.RepositoryNotFoundError:
            raise UsageError(
                f"there is no model {id} at {self.endpoint}, or it is private",
                fix="check model.id; a private one wants a token: model.token: {secret: NAME}, or HF_TOKEN",
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
                    f"the hub refuses the token for {id} ({status})",
                    fix=f"renew it at {self.endpoint}/settings/tokens, with the right to read this model",
                ) from None
            raise EnvironmentFault(
                f"the hub at {self.endpoint} answered {status} for {id}", fix="try again later"
            ) from None
        except errors.HFValidationError as error:
            raise UsageError(f"the hub cannot have such a model: {_first_line(error)}") from None
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
    """huggingface_hub, without its progress bars: what a user reads is ours."""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return huggingface_hub


def _license(info: Any) -> str | None:
    """The card's licence; a card may name several, of which none can be taken for granted."""
    named = info.card_data.get("license") if info.card_data else None
    if named is None:
        named = next(
            (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None
        )
    return named if isinstance(named, str) else None


def _is_transport_error(error: Exception) -> bool:
    """Whether it comes from the HTTP library below, which is httpx under one name or another."""
    return any(kind.__name__ in ("TransportError", "HTTPError") for kind in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
