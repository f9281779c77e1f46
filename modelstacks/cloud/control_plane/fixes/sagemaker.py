"""SageMaker: instance types of today, network isolation, deployment settings, UpdateEndpoint.

moto's own InvokeEndpoint answers canned data, for endpoints that do not exist too. Here it refuses: the
data plane is
who serves sagemaker-runtime, and nobody should mistake moto for it.
"""

from __future__ import annotations

from typing import Any

import botocore.session
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from modelstacks.cloud.control_plane.fixes import afterwards

#: CreateEndpointConfig's members that moto drops, by the attribute under which its answer finds them.
_ENDPOINT_CONFIG = {
    "ShadowProductionVariants": "shadow_production_variants",
    "ExplainerConfig": "explainer_config",
    "ExecutionRoleArn": "execution_role_arn",
    "VpcConfig": "vpc_config",
    "EnableNetworkIsolation": "enable_network_isolation",
}


def install() -> None:
    """Change moto's SageMaker."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    known = frozenset(model.shape_for("ProductionVariantInstanceType").enum)

    def validate_instance_type(_self: FakeEndpointConfig, instance_type: str) -> None:
        if instance_type not in known:
            raise ValidationError(
                f"Value '{instance_type}' at 'instanceType' failed to satisfy constraint: "
                f"Member must satisfy enum value set: {sorted(known)}"
            )

    FakeEndpointConfig.validate_instance_type = validate_instance_type

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
        return answer

    SageMakerResponse.update_endpoint = _update_endpoint
    SageMakerRuntimeResponse.invoke_endpoint = _refuse
    SageMakerRuntimeResponse.invoke_endpoint_async = _refuse


def _update_endpoint(self: Any) -> Any:
    """UpdateEndpoint: a new configuration, with the old one's counts and weights kept on request."""
    backend, name = self.sagemaker_backend, self._get_param("EndpointName")
    backend.describe_endpoint(name)  # raises what AWS raises for one that is not there
    endpoint: FakeEndpoint = backend.endpoints[name]
    config = backend.describe_endpoint_config(self._get_param("EndpointConfigName"))
    before = {variant["VariantName"]: variant for variant in endpoint.production_variants}
    endpoint.production_variants = _running(endpoint, config["ProductionVariants"])
    if self._get_param("RetainAllVariantProperties"):
        endpoint.production_variants = [
            before.get(new["VariantName"], new) for new in endpoint.production_variants
        ]
    endpoint.endpoint_config_name = config["EndpointConfigName"]
    endpoint.data_capture_config = config.get("DataCaptureConfig") or {}
    endpoint.last_modified_time = utcnow()
    if (deployment := self._get_param("DeploymentConfig")) is not None:
        endpoint.last_deployment_config = deployment
    return ActionResult({"EndpointArn": endpoint.arn})


def _running(endpoint: FakeEndpoint, variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A configuration's variants as an endpoint describes them once they run."""
    processed: list[dict[str, Any]] = endpoint._process_production_variants(variants)  # noqa: SLF001
    return processed


def _refuse(_self: Any) -> Any:
    raise ValidationError(
        "sagemaker-runtime is served by the data plane: call the endpoint through `modelstacks up`"
    )
