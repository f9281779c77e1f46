"""Elastic Load Balancing v2: states of load balancers, transforms, subnets, attributes, health checks.

A load balancer is provisioning until the data plane reports that it has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import FakeLoadBalancer, elbv2_backends
from moto.elbv2.responses import ELBV2Response

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.cloud.account.patching import afterwards, beforehand

#: A load balancer takes a subnet with at least this many free addresses.
_FREE_ADDRESSES = 8

#: Attribute -> its bounds, in seconds. User guide, "Load balancer attributes".
_SECONDS = {
    "idle_timeout.timeout_seconds": (1, 4000),
    "client_keep_alive.seconds": (60, 604_800),
}

#: Characters of a regular expression and of its replacement, as RewriteConfig's documentation states them.
_LONGEST_PATTERN = 1024

#: Attribute -> its values.
_VALUES = {
    "routing.http.desync_mitigation_mode": ("monitor", "defensive", "strictest"),
    "routing.http.xff_header_processing.mode": ("append", "preserve", "remove"),
}

#: CreateTargetGroup's parameter -> its bounds, as its documentation states them.
_HEALTH_CHECK = {
    "HealthCheckIntervalSeconds": (5, 300),
    "HealthCheckTimeoutSeconds": (2, 120),
}


def _install() -> None:
    """Change moto's load balancers."""
    _keep_transforms()
    activate = FakeLoadBalancer.activate

    def activate_alone(self: FakeLoadBalancer) -> None:
        if not CHANNEL.attached:
            activate(self)

    # moto activates each load balancer that is described.
    FakeLoadBalancer.activate = activate_alone
    FakeLoadBalancer.load_balancer_state = property(_state)

    @beforehand(ELBV2Response, "create_load_balancer")
    def check_subnets(self: Any) -> None:
        if self._get_param("Type", "application") == "application":
            _check_subnets(self.elbv2_backend.ec2_backend, _subnet_ids(self))

    @beforehand(ELBV2Response, "set_subnets")
    def check_new_subnets(self: Any) -> None:
        balancer = self.elbv2_backend.load_balancers.get(self._get_param("LoadBalancerArn"))
        if balancer is not None and balancer.type == "application":
            had = {subnet.id for subnet in balancer.subnets}
            _check_subnets(self.elbv2_backend.ec2_backend, _subnet_ids(self), had)

    @beforehand(ELBV2Response, "modify_load_balancer_attributes")
    def check_attributes(self: Any) -> None:
        for attribute in self._get_param("Attributes", []):
            _check_attribute(attribute["Key"], attribute["Value"])

    @beforehand(ELBV2Response, "create_target_group")
    def check_health_check(self: Any) -> None:
        _check_health_check(self, interval=30, timeout=5)

    @beforehand(ELBV2Response, "modify_target_group")
    def check_new_health_check(self: Any) -> None:
        group = self.elbv2_backend.target_groups.get(self._get_param("TargetGroupArn"))
        if group is not None:
            interval, timeout = group.health_check_interval_seconds, group.health_check_timeout_seconds
            _check_health_check(self, interval=interval or 30, timeout=timeout or 5)


def _state(balancer: FakeLoadBalancer) -> dict[str, str]:
    reason = getattr(balancer, "state_reason", "")
    return {"Code": balancer.state, **({"Reason": reason} if reason else {})}


def _hear(account: str, report: Report) -> None:
    """Take over the data plane's report on a load balancer that is being provisioned."""
    balancers = elbv2_backends[account][report.arn.split(":")[3]].load_balancers
    balancer = balancers.get(report.arn)
    if balancer is None or balancer.state != "provisioning" or report.state == "starting":
        return
    balancer.state = "failed" if report.state == "failed" else "active"
    balancer.state_reason = report.reason


def _keep_transforms() -> None:
    for action in ("create_rule", "modify_rule"):

        @beforehand(ELBV2Response, action)
        def check_patterns(self: Any) -> None:
            for condition in self._get_param("Conditions", []):
                for config in ("PathPatternConfig", "HostHeaderConfig", "HttpHeaderConfig"):
                    for pattern in condition.get(config, {}).get("RegexValues", []):
                        _check_pattern(pattern)
            for rewrite in _rewrites(self._get_param("Transforms", [])):
                _check_pattern(rewrite["Regex"], rewrite["Replace"])

    @afterwards(ELBV2Response, "create_rule")
    def keep_transforms(self: Any, answer: Any) -> Any:
        for rule in answer.result["Rules"]:
            rule.transforms = self._get_param("Transforms", [])
        return answer

    @afterwards(ELBV2Response, "modify_rule")
    def change_transforms(self: Any, answer: Any) -> Any:
        for rule in answer.result["Rules"]:
            given = self._get_param("Transforms")
            if given or self._get_bool_param("ResetTransforms", False):
                rule.transforms = given or []
        return answer


def _rewrites(transforms: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for transform in transforms:
        for config in ("UrlRewriteConfig", "HostHeaderRewriteConfig"):
            yield from transform.get(config, {}).get("Rewrites", [])


def _check_pattern(pattern: str, replacement: str = "") -> None:
    """A pattern that cannot be compiled would fail each request that meets its rule."""
    if max(len(pattern), len(replacement)) > _LONGEST_PATTERN:
        raise ELBClientError("ValidationError", f"A regex can have at most {_LONGEST_PATTERN} characters")
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ELBClientError("ValidationError", f"The regex '{pattern}' is not valid: {error}") from error
    if any(int(number) > groups for number in re.findall(r"\$(\d)", replacement)):
        raise ELBClientError(
            "ValidationError", f"'{replacement}' refers to a group that the regex '{pattern}' does not have"
        )


def _subnet_ids(response: Any) -> list[str]:
    mapped = response._get_param("SubnetMappings", [])
    return [*response._get_param("Subnets", []), *(mapping["SubnetId"] for mapping in mapped)]


def _check_subnets(
    ec2: Any, subnet_ids: list[str], attached: set[str] | frozenset[str] = frozenset()
) -> None:
    """What an Application Load Balancer needs of its subnets. It has addresses in those attached already."""
    subnets = [ec2.get_subnet(subnet_id) for subnet_id in dict.fromkeys(subnet_ids)]
    zones = Counter(subnet.availability_zone for subnet in subnets)
    if any(count > 1 for count in zones.values()):
        raise ELBClientError(
            "InvalidConfigurationRequest",
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        )
    if len(zones) < 2:
        raise ELBClientError(
            "ValidationError", "At least two subnets in two different Availability Zones must be specified"
        )
    for subnet in subnets:
        if subnet.id not in attached and subnet.available_ip_address_count < _FREE_ADDRESSES:
            raise ELBClientError(
                "InvalidSubnet",
                f"Not enough IP space available in {subnet.id}. ELB requires at least {_FREE_ADDRESSES} free "
                "IP addresses in each subnet.",
            )


def _check_attribute(key: str, value: str) -> None:
    if bounds := _SECONDS.get(key):
        least, most = bounds
        if not value.isdecimal() or not least <= int(value) <= most:
            raise ELBClientError(
                "ValidationError", f"'{key}' value '{value}' must be between '{least}-{most}' inclusive"
            )
    if (values := _VALUES.get(key)) and value not in values:
        raise ELBClientError(
            "ValidationError", f"'{key}' value '{value}' must be one of [{', '.join(values)}]"
        )


def _check_health_check(response: Any, *, interval: int, timeout: int) -> None:
    """Check bounds, and the interval against the timeout; `interval` and `timeout` are what holds so far."""
    given = {name: response._get_int_param(name) for name in _HEALTH_CHECK}
    for name, value in given.items():
        least, most = _HEALTH_CHECK[name]
        if value is not None and not least <= value <= most:
            member = name[0].lower() + name[1:]
            limit = f"less than or equal to {most}" if value > most else f"greater than or equal to {least}"
            raise ELBClientError(
                "ValidationError",
                f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: "
                f"Member must have value {limit}",
            )
    interval = given["HealthCheckIntervalSeconds"] or interval
    if interval <= (given["HealthCheckTimeoutSeconds"] or timeout):
        raise ELBClientError("ValidationError", "Health check interval must be greater than the timeout.")


ADDITIONS = Additions(install=_install, hears={"load-balancer": _hear})
