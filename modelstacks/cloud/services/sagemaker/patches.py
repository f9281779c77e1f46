"""SageMaker: current instance types, network isolation, deployment settings, endpoints that take their time.

An endpoint is Creating or Updating until the data plane reports on it. A failed update leaves the old
configuration in service.

moto's own InvokeEndpoint answers canned data, even for endpoints that do not exist. Here it refuses: the data
plane serves sagemaker-runtime.
"""

from __future__ import annotations

import re
from typing import Any

import botocore.session
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.cloud.account.patching import afterwards, beforehand

#: CreateEndpointConfig's members that moto drops, by the attribute under which its answer finds them.
_ENDPOINT_CONFIG = {
    "ShadowProductionVariants": "shadow_production_variants",
    "ExplainerConfig": "explainer_config",
    "ExecutionRoleArn": "execution_role_arn",
    "VpcConfig": "vpc_config",
    "EnableNetworkIsolation": "enable_network_isolation",
}

_ECR_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(?:\.cn)?/(?P<repository>[\w./-]+)"
    r"(?::(?P<tag>[\w.-]+)|@(?P<digest>sha256:[0-9a-f]{64}))"
)


def _install() -> None:
    """Change moto's SageMaker."""
    _check_first()

    @afterwards(SageMakerResponse, "create_model")
    def keep_isolation(self: Any, answer: Any) -> Any:
        made = self.sagemaker_backend.describe_model(self._get_param("ModelName"))
        made.enable_network_isolation = bool(self._get_param("EnableNetworkIsolation"))
        if execution := self._get_param("InferenceExecutionConfig"):
            made.inference_execution_config = execution
        return answer

    @afterwards(SageMakerResponse, "create_endpoint_config")
    def keep_configuration(self: Any, answer: Any) -> Any:
        made = self.sagemaker_backend.endpoint_configs[self._get_param("EndpointConfigName")]
        for member, attribute in _ENDPOINT_CONFIG.items():
            if (value := self._get_param(member)) is not None:
                setattr(made, attribute, value)
        return answer

    @afterwards(SageMakerResponse, "create_endpoint")
    def keep_deployment(self: Any, answer: Any) -> Any:
        made = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
        if (deployment := self._get_param("DeploymentConfig")) is not None:
            made.last_deployment_config = deployment
        if CHANNEL.attached:
            made.endpoint_status = "Creating"
        return answer

    for action in ("describe_endpoint", "describe_endpoint_config"):
        afterwards(SageMakerResponse, action)(_without_an_empty_capture_config)
    SageMakerResponse.update_endpoint = _update_endpoint
    SageMakerRuntimeResponse.invoke_endpoint = _refuse
    SageMakerRuntimeResponse.invoke_endpoint_async = _refuse


def _check_first() -> None:
    """Refuse instance types and images that SageMaker would refuse."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    known = frozenset(model.shape_for("ProductionVariantInstanceType").enum)

    def validate_instance_type(_self: FakeEndpointConfig, instance_type: str) -> None:
        if instance_type not in known:
            raise ValidationError(
                f"Value '{instance_type}' at 'instanceType' failed to satisfy constraint: "
                f"Member must satisfy enum value set: {sorted(known)}"
            )

    FakeEndpointConfig.validate_instance_type = validate_instance_type

    @beforehand(SageMakerResponse, "create_model")
    def check_images(self: Any) -> None:
        primary = self._get_param("PrimaryContainer")
        for container in [*([primary] if primary else []), *(self._get_param("Containers") or [])]:
            _check_manifest(container.get("Image") or "")


def _update_endpoint(self: Any) -> Any:
    """UpdateEndpoint: a new configuration, with the old one's counts and weights kept on request."""
    backend, name = self.sagemaker_backend, self._get_param("EndpointName")
    backend.describe_endpoint(name)  # raises what AWS raises for one that is not there
    endpoint: FakeEndpoint = backend.endpoints[name]
    config = backend.describe_endpoint_config(self._get_param("EndpointConfigName"))
    if endpoint.endpoint_status in ("Creating", "Updating"):
        raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
    _check_scaled_variants(self, endpoint, config["ProductionVariants"])
    retain = bool(self._get_param("RetainAllVariantProperties"))
    endpoint.last_modified_time = utcnow()
    endpoint.failure_reason = None
    if (deployment := self._get_param("DeploymentConfig")) is not None:
        endpoint.last_deployment_config = deployment
    if CHANNEL.attached:
        endpoint.endpoint_status = "Updating"
        endpoint.pending_deployment_summary = {
            "EndpointConfigName": config["EndpointConfigName"],
            "ProductionVariants": [
                {"VariantName": one["VariantName"], "DesiredInstanceCount": one.get("DesiredInstanceCount")}
                for one in _next_variants(endpoint, config, retain=retain)
            ],
            "StartTime": utcnow(),
        }
        endpoint.retains_variant_properties = retain
    else:
        _take_over(endpoint, config, retain=retain)
    return ActionResult({"EndpointArn": endpoint.arn})


def _hear(account: str, report: Report) -> None:
    """Take over what the data plane reports of an endpoint that is being created or updated."""
    backend = sagemaker_backends[account][report.arn.split(":")[3]]
    endpoint = next((one for one in backend.endpoints.values() if one.arn == report.arn), None)
    if endpoint is None or report.state == "starting":
        return
    pending = getattr(endpoint, "pending_deployment_summary", None)
    goal = pending["EndpointConfigName"] if pending else endpoint.endpoint_config_name
    if goal != report.generation or endpoint.endpoint_status not in ("Creating", "Updating"):
        return
    creating = endpoint.endpoint_status == "Creating"
    endpoint.endpoint_status = "InService"
    endpoint.pending_deployment_summary = None
    endpoint.last_modified_time = utcnow()
    if report.state == "failed":
        endpoint.failure_reason = report.reason
        endpoint.endpoint_status = "Failed" if creating else "InService"
        CHANNEL.announce()  # the old configuration is the endpoint's again
    elif pending:
        config = backend.describe_endpoint_config(goal)
        _take_over(endpoint, config, retain=endpoint.retains_variant_properties)


def _take_over(endpoint: FakeEndpoint, config: dict[str, Any], *, retain: bool) -> None:
    """The new configuration is the endpoint's."""
    endpoint.production_variants = _next_variants(endpoint, config, retain=retain)
    endpoint.endpoint_config_name = config["EndpointConfigName"]
    endpoint.data_capture_config = config.get("DataCaptureConfig") or {}


def _next_variants(endpoint: FakeEndpoint, config: dict[str, Any], *, retain: bool) -> list[dict[str, Any]]:
    """The variants once a configuration is the endpoint's; `retain` keeps their counts and weights."""
    before = {variant["VariantName"]: variant for variant in endpoint.production_variants}
    variants = _running(endpoint, config["ProductionVariants"])
    return [before.get(one["VariantName"], one) if retain else one for one in variants]


def _without_an_empty_capture_config(_self: Any, answer: Any) -> Any:
    """SageMaker leaves out what was not configured; the SageMaker SDK refuses an empty DataCaptureConfig."""
    return ActionResult(
        {name: value for name, value in answer.result.items() if (name, value) != ("DataCaptureConfig", {})}
    )


def _check_scaled_variants(response: Any, endpoint: FakeEndpoint, variants: list[dict[str, Any]]) -> None:
    """Raise what UpdateEndpoint raises where a variant that is scaled goes, or gets another instance type."""
    scaling = applicationautoscaling_backends[response.current_account][response.region]
    targets = scaling.targets.get("sagemaker:variant:DesiredInstanceCount", {})
    old = {one["VariantName"]: one.get("InstanceType") for one in _configured(response, endpoint)}
    new = {one["VariantName"]: one.get("InstanceType") for one in variants}
    moved = [
        name
        for name, kind in old.items()
        if f"endpoint/{endpoint.endpoint_name}/variant/{name}" in targets and new.get(name) != kind
    ]
    if moved:
        raise ValidationError(
            f'The variant(s) "[{", ".join(moved)}]" must be deregistered as scalable targets with AWS Auto '
            "Scaling before they can be removed or have their instance type updated."
        )


def _configured(response: Any, endpoint: FakeEndpoint) -> list[dict[str, Any]]:
    """The variants of the configuration that an endpoint has now; none where that was deleted."""
    config = response.sagemaker_backend.endpoint_configs.get(endpoint.endpoint_config_name)
    variants: list[dict[str, Any]] = config.production_variants if config else []
    return variants


def _check_manifest(image: str) -> None:
    """Raise what CreateModel raises for an image whose manifest is not Docker's own."""
    place = _ECR_IMAGE.fullmatch(image)
    if place is None:
        return
    from moto.ecr.models import ecr_backends  # only images that were pushed here need it

    repository = ecr_backends[place["account"]][place["region"]].repositories.get(place["repository"])
    for pushed in repository.images if repository else []:
        named = place["tag"] in pushed.image_tags if place["tag"] else pushed.image_digest == place["digest"]
        kind = pushed.image_manifest_media_type
        if named and kind and not kind.startswith("application/vnd.docker.distribution.manifest.v"):
            raise ValidationError(
                f"Unsupported manifest media type {kind} for image {image}. Ensure that valid manifest media "
                "type is used for specified image."
            )


def _running(endpoint: FakeEndpoint, variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A configuration's variants as an endpoint describes them once they run."""
    processed: list[dict[str, Any]] = endpoint._process_production_variants(variants)
    return processed


def _refuse(_self: Any) -> Any:
    raise ValidationError(
        "sagemaker-runtime is served by the data plane: call the endpoint through `modelstacks up`"
    )


ADDITIONS = Additions(install=_install, hears={"sagemaker-endpoint": _hear})
