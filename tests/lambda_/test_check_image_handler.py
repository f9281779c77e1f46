"""The check of an image's manifest: what SageMaker would refuse fails the stack, with the cure."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

HANDLER = Path(__file__).parents[2] / "lambda" / "check_image" / "handler.py"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """ECR's BatchGetImage, in memory."""

    def __init__(self, images: dict[str, dict[str, Any]] | Exception) -> None:
        self.images = images

    def batch_get_image(self, *, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        if isinstance(self.images, Exception):
            raise self.images
        found = self.images.get(f"{repositoryName}:{imageIds[0]['imageTag']}")
        failure = {"failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
        return {"images": [found], "failures": []} if found else {"images": [], "failures": [failure]}


@pytest.fixture(scope="module")
def handler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_image_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cloudformation() -> Iterator[SimpleNamespace]:
    """Where CloudFormation waits for the answer."""
    received: list[dict[str, Any]] = []
    kinds: list[str | None] = []

    class Waiting(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            kinds.append(self.headers.get("content-type"))
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Waiting)
    Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/answer", received=received, kinds=kinds)
    server.shutdown()
    server.server_close()


def asked(url: str, kind: str = "Create") -> dict[str, Any]:
    return {
        "RequestType": kind,
        "ResponseURL": url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Manifest",
        "ResourceProperties": {"RepositoryName": "assets", "ImageTag": "0123"},
    }


def image(kind: str, *, named: bool = True) -> dict[str, Any]:
    found = {"imageManifest": json.dumps({"schemaVersion": 2, "mediaType": kind})}
    return {**found, "imageManifestMediaType": kind} if named else found


@pytest.mark.parametrize("named", [True, False])
def test_an_image_with_dockers_manifest_passes(
    handler: ModuleType, cloudformation: SimpleNamespace, named: bool
) -> None:
    registry = Registry({"assets:0123": image(DOCKER, named=named)})
    handler.handle(asked(cloudformation.url), SimpleNamespace(log_stream_name="s"), ecr=registry)
    [answer] = cloudformation.received
    assert answer["Status"] == "SUCCESS"
    assert answer["PhysicalResourceId"] == "assets:0123"
    assert (answer["StackId"], answer["RequestId"], answer["LogicalResourceId"]) == (
        "stack",
        "request",
        "Manifest",
    )
    assert cloudformation.kinds == [""], "the URL is signed for an empty content type"


@pytest.mark.parametrize("kind", [OCI, INDEX])
def test_an_oci_manifest_fails_and_says_what_was_pushed_and_how_to_push_it(
    handler: ModuleType, cloudformation: SimpleNamespace, kind: str
) -> None:
    handler.handle(asked(cloudformation.url), None, ecr=Registry({"assets:0123": image(kind)}))
    [answer] = cloudformation.received
    assert answer["Status"] == "FAILED"
    for word in (kind, DOCKER, "oci-mediatypes=false", "batch-delete-image --repository-name assets", "0123"):
        assert word in answer["Reason"]
    assert len(json.dumps(answer)) < 4096, "what CloudFormation takes"


@pytest.mark.parametrize(
    ("registry", "reason"),
    [
        (Registry({}), "ECR has no image assets:0123: Requested image not found"),
        (Registry(PermissionError("AccessDenied")), "could not be checked: AccessDenied"),
    ],
    ids=["missing", "denied"],
)
def test_what_cannot_be_checked_fails_at_once(
    handler: ModuleType, cloudformation: SimpleNamespace, registry: Registry, reason: str
) -> None:
    handler.handle(asked(cloudformation.url, "Update"), None, ecr=registry)
    [answer] = cloudformation.received
    assert answer["Status"] == "FAILED"
    assert reason in answer["Reason"]


def test_a_deletion_succeeds_whatever_is_in_the_registry(
    handler: ModuleType, cloudformation: SimpleNamespace
) -> None:
    handler.handle(asked(cloudformation.url, "Delete"), None, ecr=Registry({}))
    assert cloudformation.received[0]["Status"] == "SUCCESS"
