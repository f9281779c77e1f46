"""A CloudFormation custom resource that checks that SageMaker accepts the manifest of an image in ECR.

SageMaker accepts Docker's manifest (schema 2). It refuses OCI's when a model or an endpoint is created, with
a message that does not say how the image got it. This check runs before that and says so.

    ResourceProperties: RepositoryName, ImageTag
"""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

import boto3

ACCEPTED = "application/vnd.docker.distribution.manifest.v2+json"
LONGEST_REASON = 2000  # CloudFormation takes a response of at most 4096 bytes

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


class UnacceptableImage(Exception):
    """The image does not exist, or SageMaker would refuse it. The message is for the person who deploys."""


def handle(event: dict[str, Any], context: Any, *, ecr: Any = None) -> None:
    """Check the image on Create and Update, and answer CloudFormation; there is nothing to delete."""
    properties = event["ResourceProperties"]
    reason = ""
    if event["RequestType"] != "Delete":
        try:
            check(ecr or boto3.client("ecr"), properties["RepositoryName"], properties["ImageTag"])
        except UnacceptableImage as error:
            reason = str(error)
        except Exception as error:  # CloudFormation would wait for an hour for an answer that never comes
            logger.exception("the check failed")
            reason = f"the image's manifest could not be checked: {error}"
    respond(event, reason, getattr(context, "log_stream_name", ""))


def check(ecr: Any, repository: str, tag: str) -> None:
    """Raise UnacceptableImage unless ECR holds the tag with a manifest that SageMaker accepts."""
    found = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])
    if not found.get("images"):
        failures = ", ".join(failure.get("failureReason", "") for failure in found.get("failures", []))
        raise UnacceptableImage(f"ECR has no image {repository}:{tag}: {failures or 'not found'}")
    image = found["images"][0]
    kind = image.get("imageManifestMediaType") or json.loads(image["imageManifest"]).get("mediaType", "none")
    logger.info("%s:%s has the manifest %s", repository, tag, kind)
    if kind != ACCEPTED:
        raise UnacceptableImage(
            f"image {repository}:{tag} was pushed with the manifest {kind}, and SageMaker accepts {ACCEPTED} "
            "only; fix: build it with BuildKit, which obeys the asset's --output "
            "type=docker,oci-mediatypes=false, and without attestations (BUILDX_NO_DEFAULT_ATTESTATIONS=1); "
            f"delete this one (aws ecr batch-delete-image --repository-name {repository} --image-ids "
            f"imageTag={tag}; docker image rm cdkasset-{tag}) and deploy again"
        )


def respond(event: dict[str, Any], reason: str, log_stream: str) -> None:
    """Send CloudFormation the outcome; an empty reason is success."""
    properties = event["ResourceProperties"]
    answer = {
        "Status": "FAILED" if reason else "SUCCESS",
        "Reason": reason[:LONGEST_REASON] or f"see log stream {log_stream}",
        "PhysicalResourceId": f"{properties.get('RepositoryName')}:{properties.get('ImageTag')}",
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    body = json.dumps(answer).encode()
    # The URL is signed for an empty content type.
    request = urllib.request.Request(  # noqa: S310  CloudFormation's own URL
        event["ResponseURL"], data=body, method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=20) as answered:  # noqa: S310
        logger.info("CloudFormation answered %s", answered.status)
