"""Which listener a private integration reaches: the load balancer is named, the URI's port chooses."""

from __future__ import annotations

import pytest

from modelstacks.cloud.services.apigateway.http_integration import listener_of
from modelstacks.cloud.services.apigateway.snapshot import Integration
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot, Listener, LoadBalancer
from modelstacks.cloud.snapshot import Account

BALANCER = LoadBalancer("arn:lb", "lb", "Internal-1.elb.example", "internal", "application", (), (), 60)
OTHER = LoadBalancer("arn:other", "other", "other.elb.example", "internal", "application", (), (), 60)
ACCOUNT = Account(
    ElbSnapshot(
        {"arn:lb": BALANCER, "arn:other": OTHER},
        {
            "arn:other:80": Listener("arn:other", 80, "HTTP", ()),
            "arn:lb:80": Listener("arn:lb", 80, "HTTP", ()),
            "arn:lb:8081": Listener("arn:lb", 8081, "HTTP", ()),
            "arn:lb:443": Listener("arn:lb", 443, "HTTPS", ()),
        },
    )
)


@pytest.mark.parametrize(
    ("uri", "target", "found"),
    [
        ("http://internal-1.elb.example/ping", "arn:lb", "arn:lb:80"),
        ("http://internal-1.elb.example:8081/ping", "arn:lb", "arn:lb:8081"),
        ("https://models.example.com/ping", "arn:lb", "arn:lb:443"),
        ("http://whatever.example/ping", "arn:lb", "arn:lb:80"),
        ("http://internal-1.elb.example/ping", "arn:other", "arn:other:80"),
        ("http://internal-1.elb.example/ping", "", "arn:lb:80"),
        ("http://internal-1.elb.example:9090/ping", "arn:lb", None),
        ("http://internal-1.elb.example/ping", "arn:gone", None),
        # A listener's ARN names no load balancer: API Gateway refuses it.
        ("http://internal-1.elb.example/ping", "arn:lb:80", None),
    ],
)
def test_the_port_of_the_uri_chooses_the_listener(uri: str, target: str, found: str | None) -> None:
    integration = Integration("HTTP_PROXY", "GET", uri, "VPC_LINK", "link", target, {}, 29000, False, "", "")
    listener = listener_of(ACCOUNT, integration)
    assert (f"{listener.load_balancer_arn}:{listener.port}" if listener else None) == found
