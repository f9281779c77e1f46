"""A Hugging Face Hub of one's own: the routes and headers that huggingface_hub relies on, over real HTTP.

    with LocalHub() as hub:
        commit = hub.add("acme/sentiment", folder)
        huggingface_hub.HfApi(endpoint=hub.endpoint).model_info("acme/sentiment")

It refuses as the real one does (status, X-Error-Code), redirects what was renamed, sends large files by way
of a "CDN" on another host, and can be told to break a download in its middle or to send other bytes than it
promised.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin", ".gguf")  # what the Hub keeps in LFS, with a sha256


@dataclass
class Repository:
    """A model repository: every commit with all its files, the newest last."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    @property
    def main(self) -> str:
        return list(self.commits)[-1]

    def card(self, commit: str, key: str) -> str | None:
        """A value of the model card's front matter."""
        text = self.commits[commit].get("README.md", b"").decode().split("---")
        found = re.search(rf"^{key}: *(\S+)$", text[1], re.MULTILINE) if len(text) > 2 else None
        return found.group(1) if found else None


@dataclass
class Seen:
    """A request that the hub answered."""

    method: str
    path: str
    token: str | None


class LocalHub:
    """The hub, on a free port of 127.0.0.1 while the `with` block lasts."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.tokens: dict[str, set[str]] = {}  # token -> the gated or private repositories that it opens
        self.breaks: dict[str, int] = {}  # path -> how many more downloads of it end in their middle
        self.forged: dict[str, bytes] = {}  # path -> what is sent in place of its bytes
        self.failing = 0  # the next so many requests are answered 500
        self.seen: list[Seen] = []
        routes = [
            Route("/api/models/{id:path}/revision/{revision}", self._info),
            Route("/cdn/{sha256}/{path:path}", self._cdn),
            Route("/{id:path}/resolve/{revision}/{path:path}", self._resolve),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off", loop="asyncio")
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        port = self._socket.getsockname()[1]
        self.endpoint, self._cdn_endpoint = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self  # the socket listens already: a request waits until the server takes it

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    def add(
        self,
        id: str,
        files: Path | dict[str, bytes],
        *,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Commit a folder, or files by path, to a repository's main; return the commit."""
        if isinstance(files, Path):
            paths = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        repository = self.repositories.setdefault(id, Repository())
        repository.gated, repository.private = gated, private
        content = b"".join(path.encode() + hashlib.sha256(files[path]).digest() for path in sorted(files))
        commit = hashlib.sha1(content + str(len(repository.commits)).encode()).hexdigest()
        repository.commits[commit] = dict(files)
        return commit

    def rename(self, old: str, new: str) -> None:
        self.repositories[new] = self.repositories.pop(old)
        self.renamed[old] = new

    def _open(self, request: Request, *, files: bool) -> tuple[Repository, str] | Response:
        """The repository and commit that a request names, or why it gets none. `files`: it wants bytes."""
        authorization = request.headers.get("authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        self.seen.append(Seen(request.method, request.url.path, token))
        if self.failing:
            self.failing -= 1
            return Response("try again", 500)
        name, revision = request.path_params["id"], request.path_params["revision"]
        if name in self.renamed:
            return RedirectResponse(
                request.url.path.replace(name, self.renamed[name], 1) + f"?{request.url.query}", 307
            )
        if token is not None and token not in self.tokens:
            return _refusal(401, "", "Invalid credentials in Authorization header")
        opens = name in self.tokens.get(token or "", set())
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not opens):
            return _refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        if files and repository.gated and not opens:
            return _refusal(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted")
        commit = repository.main if revision == "main" else revision
        if commit not in repository.commits:
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    async def _info(self, request: Request) -> Response:
        found = self._open(request, files=False)
        if isinstance(found, Response):
            return found
        repository, commit = found
        siblings: list[dict[str, Any]] = []
        for path, content in repository.commits[commit].items():
            header = b"blob %d\0" % len(content)
            blob = {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(header + content).hexdigest(),
            }
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(blob | ({"lfs": lfs} if path.endswith(LARGE) else {}))
        license, task = repository.card(commit, "license"), repository.card(commit, "pipeline_tag")
        return JSONResponse(
            {
                "id": request.path_params["id"],
                "modelId": request.path_params["id"],
                "sha": commit,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [f"license:{license}"] if license else [],
                "siblings": siblings,
                **({"cardData": {"license": license}} if license else {}),
                **({"pipeline_tag": task} if task else {}),
            }
        )

    async def _resolve(self, request: Request) -> Response:
        found = self._open(request, files=True)
        if isinstance(found, Response):
            return found
        repository, commit = found
        path = request.path_params["path"]
        content = repository.commits[commit].get(path)
        if content is None:
            return _refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not path.endswith(LARGE):
            return self._send(
                request, path, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            )
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        headers |= {"Location": f"{self._cdn_endpoint}/cdn/{sha256}/{path}"}
        return Response(status_code=302, headers=headers)

    async def _cdn(self, request: Request) -> Response:
        for repository in self.repositories.values():
            for files in repository.commits.values():
                content = files.get(request.path_params["path"], b"")
                if hashlib.sha256(content).hexdigest() == request.path_params["sha256"]:
                    etag = {"ETag": f'"{request.path_params["sha256"]}"'}
                    return self._send(request, request.path_params["path"], content, etag)
        return Response(status_code=404)

    def _send(self, request: Request, path: str, content: bytes, headers: dict[str, str]) -> Response:
        content = self.forged.get(path, content)
        status, start = 200, 0
        if partial := re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "")):
            status, start = 206, int(partial.group(1))
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        headers |= {"Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        broken = self.breaks.get(path, 0) > 0
        if broken:
            self.breaks[path] -= 1

        async def body() -> AsyncIterator[bytes]:
            yield content[start : start + (len(content) - start) // 2]
            if broken:
                raise ConnectionAbortedError  # after a length was promised: the client sees the line go dead
            yield content[start + (len(content) - start) // 2 :]

        return StreamingResponse(body(), status, headers)


def _refusal(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return JSONResponse({"error": message}, status, headers)
