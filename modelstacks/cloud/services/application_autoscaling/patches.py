"""Application Auto Scaling: a policy that is put again takes its old alarms with it, and keeps its ARN."""

from __future__ import annotations

from typing import Any

from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, FakeApplicationAutoscalingPolicy

from modelstacks.cloud.account.additions import Additions


def _install() -> None:
    """Change moto's Application Auto Scaling."""
    put = ApplicationAutoscalingBackend.put_scaling_policy

    def put_again(
        self: Any,
        policy_name: str,
        service_namespace: str,
        resource_id: str,
        scalable_dimension: str,
        policy_body: dict[str, Any],
        policy_type: str | None,
    ) -> Any:
        place = (service_namespace, resource_id, scalable_dimension, policy_name)
        old = self.policies.get(FakeApplicationAutoscalingPolicy.formulate_key(*place))
        if old is not None:
            old.delete_alarms(self.account_id, self.region_name)
        new = put(
            self, policy_name, service_namespace, resource_id, scalable_dimension, policy_body, policy_type
        )
        if old is not None:
            new.policy_arn = old.policy_arn
        return new

    ApplicationAutoscalingBackend.put_scaling_policy = put_again


ADDITIONS = Additions(install=_install)
