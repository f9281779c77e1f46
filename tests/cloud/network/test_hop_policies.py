"""IAM's rules: deny wins, silence denies, conditions are exact, and the unknown is refused, not guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.cloud.network.policies import (
    Call,
    Decision,
    UnsupportedError,
    authorize,
    evaluate,
    trusts,
)
from modelstacks.cloud.services.iam.snapshot import Policy, Role

ACCOUNT = "123456789012"
ENDPOINT = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/churn"
INVOKE = Call("sagemaker:InvokeEndpoint", ENDPOINT)


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def policy(*statements: dict[str, Any], name: str = "a policy") -> Policy:
    return Policy(name, {"Version": "2012-10-17", "Statement": list(statements)})


def role(*policies: Policy, boundary: Policy | None = None, trust: Policy | None = None) -> Role:
    return Role("Caller", f"arn:aws:iam::{ACCOUNT}:role/Caller", trust or policy(), policies, boundary)


@pytest.mark.parametrize(
    ("statement", "decision"),
    [
        (allow("sagemaker:InvokeEndpoint", ENDPOINT), Decision.ALLOW),
        (allow("SageMaker:invoke*", ENDPOINT), Decision.ALLOW),
        (allow("*"), Decision.ALLOW),
        (allow("sagemaker:InvokeEndpoint", ENDPOINT.replace("churn", "chur?")), Decision.ALLOW),
        (allow("sagemaker:InvokeEndpoint", ENDPOINT.replace("churn", "Churn")), Decision.SILENT),
        (allow("sagemaker:InvokeEndpointAsync", ENDPOINT), Decision.SILENT),
        ({"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}, Decision.ALLOW),
        ({"Effect": "Allow", "NotAction": "sagemaker:*", "Resource": "*"}, Decision.SILENT),
        ({"Effect": "Allow", "Action": "*", "NotResource": ENDPOINT}, Decision.SILENT),
        ({"Effect": "Deny", "NotAction": "s3:*", "Resource": "*"}, Decision.DENY),
    ],
)
def test_a_statement_applies_by_action_and_resource(statement: dict[str, Any], decision: Decision) -> None:
    assert evaluate([policy(statement)], INVOKE).decision is decision


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {"aws:SourceVpce": "vpce-1"}}, True),
        ({"StringEquals": {"AWS:sourcevpce": ["vpce-9", "vpce-1"]}}, True),
        ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, False),
        ({"StringNotEquals": {"aws:Absent": "x"}}, True),
        ({"StringEquals": {"aws:Absent": "x"}}, False),
        ({"StringEqualsIfExists": {"aws:Absent": "x"}}, True),
        ({"StringLike": {"aws:SourceVpce": "vpce-*"}}, True),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/Call*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*role/Caller"}}, False),
        ({"NumericLessThan": {"s3:max-keys": "10"}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00+00:00"}}, True),
        ({"Null": {"aws:Absent": "true"}}, True),
        ({"Null": {"aws:SourceVpce": "true"}}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["b", "z"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, False),
        ({"StringEquals": {"aws:SourceVpce": "vpce-1"}, "Bool": {"aws:SecureTransport": "false"}}, False),
    ],
)
def test_conditions(condition: dict[str, Any], holds: bool) -> None:
    call = Call(
        "s3:GetObject",
        "arn:aws:s3:::bucket/key",
        {
            "aws:SourceVpce": "vpce-1",
            "aws:SecureTransport": "true",
            "aws:SourceIp": "10.1.2.3",
            "aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/Caller",
            "s3:max-keys": "5",
            "aws:CurrentTime": "2026-01-01T00:00:00+00:00",
            "aws:TagKeys": ("a", "b"),
        },
    )
    verdict = evaluate([policy(allow("s3:*", Condition=condition))], call)
    assert (verdict.decision is Decision.ALLOW) is holds


def test_an_unknown_condition_operator_is_refused_by_name() -> None:
    strange = policy(allow("*", Condition={"StringSortOf": {"aws:SourceVpce": "x"}}))
    with pytest.raises(UnsupportedError, match="StringSortOf"):
        evaluate([strange], INVOKE)
    refused = authorize(role(strange), INVOKE, account=ACCOUNT)
    assert refused is not None
    assert 'cannot evaluate the condition operator "StringSortOf"' in refused.reason


def test_a_role_without_a_policy_is_refused_in_awss_words() -> None:
    refused = authorize(role(), INVOKE, account=ACCOUNT)
    assert refused is not None
    assert refused.reason == (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/Caller/session is not authorized to perform: "
        f"sagemaker:InvokeEndpoint on resource: {ENDPOINT} because no identity-based policy allows the "
        "sagemaker:InvokeEndpoint action"
    )


def test_the_endpoint_policy_must_allow_as_well() -> None:
    caller = role(policy(allow("sagemaker:InvokeEndpoint", ENDPOINT)))
    other = policy(
        allow("sagemaker:InvokeEndpoint", ENDPOINT + "-other", Principal="*"),
        name="the policy of endpoint vpce-1",
    )
    same = policy(allow("sagemaker:InvokeEndpoint", ENDPOINT, Principal={"AWS": "*"}))
    assert authorize(caller, INVOKE, account=ACCOUNT, endpoint=same) is None
    refused = authorize(caller, INVOKE, account=ACCOUNT, endpoint=other)
    assert refused is not None
    assert "because the policy of endpoint vpce-1 does not allow" in refused.reason


def test_a_resource_policy_grants_by_name_but_leaves_the_account_to_its_own_policies() -> None:
    named = policy(allow("s3:GetObject", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/Caller"}))
    whole_account = policy(allow("s3:GetObject", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"}))
    call = Call("s3:GetObject", "arn:aws:s3:::bucket/key")
    assert authorize(role(), call, account=ACCOUNT, resource=named) is None
    assert authorize(role(), call, account=ACCOUNT, resource=whole_account) is not None


def test_a_kms_keys_policy_must_take_part() -> None:
    caller = role(policy(allow("kms:Decrypt")))
    call = Call("kms:Decrypt", f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k")
    default = policy(allow("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"}))
    closed = policy(allow("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/Admin"}))
    assert authorize(caller, call, account=ACCOUNT, resource=default) is None
    assert authorize(caller, call, account=ACCOUNT, resource=closed) is not None


def test_a_boundary_limits_what_the_policies_grant() -> None:
    caller = role(policy(allow("*")), boundary=policy(allow("s3:*")))
    refused = authorize(caller, INVOKE, account=ACCOUNT)
    assert refused is not None
    assert "no permissions boundary allows" in refused.reason


def test_a_trust_policy_names_the_services_that_may_assume_the_role() -> None:
    trust = policy(
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "sagemaker.amazonaws.com"}}
    )
    source = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/churn"
    assert trusts(role(trust=trust), "sagemaker.amazonaws.com", source=source) is None
    assert trusts(role(trust=trust), "ecs-tasks.amazonaws.com", source=source) is not None


def test_a_trust_policy_may_name_the_account_that_asks() -> None:
    def trusted_by(account: str) -> Role:
        condition = {"StringEquals": {"aws:SourceAccount": account}}
        principal = {"Service": "ecs-tasks.amazonaws.com"}
        statement = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": principal,
            "Condition": condition,
        }
        return role(trust=policy(statement))

    source = f"arn:aws:ecs:us-east-1:{ACCOUNT}:task/cluster/churn"
    assert trusts(trusted_by(ACCOUNT), "ecs-tasks.amazonaws.com", source=source) is None
    assert trusts(trusted_by("999999999999"), "ecs-tasks.amazonaws.com", source=source) is not None


ACTIONS = st.sampled_from(["s3:GetObject", "s3:PutObject", "sagemaker:InvokeEndpoint", "kms:Decrypt"])
PATTERNS = st.sampled_from(["*", "s3:*", "s3:Get*", "sagemaker:InvokeEndpoint", "kms:D?crypt", "none:*"])
RESOURCES = st.sampled_from(["*", "arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/key", "arn:aws:s3:::other/*"])
STATEMENTS = st.builds(allow, PATTERNS, RESOURCES) | st.builds(deny, PATTERNS, RESOURCES)
CALLS = st.builds(Call, ACTIONS, st.sampled_from(["arn:aws:s3:::bucket/key", "arn:aws:s3:::other/x"]))


@settings(deadline=None)
@given(st.lists(STATEMENTS, max_size=6), CALLS)
def test_a_deny_added_to_any_policy_denies(statements: list[dict[str, Any]], call: Call) -> None:
    assert evaluate([policy(*statements, deny(call.action))], call).decision is Decision.DENY


@settings(deadline=None)
@given(st.lists(STATEMENTS, max_size=6), CALLS, st.randoms())
def test_order_and_grouping_of_statements_do_not_matter(
    statements: list[dict[str, Any]], call: Call, random: Any
) -> None:
    shuffled = random.sample(statements, len(statements))
    together = evaluate([policy(*statements)], call).decision
    assert evaluate([policy(one) for one in shuffled], call).decision is together


@settings(deadline=None)
@given(st.lists(STATEMENTS, max_size=6), CALLS)
def test_an_allow_never_takes_away(statements: list[dict[str, Any]], call: Call) -> None:
    before = evaluate([policy(*statements)], call).decision
    after = evaluate([policy(*statements, allow("s3:*"))], call).decision
    assert after is before or (before is Decision.SILENT and after is Decision.ALLOW)


@settings(deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_a_resource_without_wildcards_matches_itself_alone(left: str, right: str) -> None:
    for char in "*?$":
        left = left.replace(char, "")
    applies = evaluate([policy(allow("s3:*", left))], Call("s3:X", right)).decision is Decision.ALLOW
    assert applies == (left == right)
