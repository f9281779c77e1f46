"""CloudFormation's API: stacks, change sets, events, parameters, outputs, as boto3 meets them."""

from __future__ import annotations

import threading

import pytest
from botocore.exceptions import ClientError
from support.control_plane import REGION, Account

from modelstacks.cloud.account.client import ENDPOINT, Unemulated


def parameter(name: str, value: object = "1") -> dict[str, object]:
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Name": name, "Type": "String", "Value": value}}


GROUP = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/g"}}


def test_outputs_and_exports_carry_what_was_made(account: Account) -> None:
    export = {"Value": {"Fn::GetAtt": ["G", "Arn"]}, "Export": {"Name": "the-group"}}
    account.create("exporter", {"G": GROUP}, Outputs={"Arn": export, "Name": {"Value": {"Ref": "G"}}})
    assert account.outputs("exporter") == {
        "Arn": f"arn:aws:logs:{REGION}:123456789012:log-group:/g:*",
        "Name": "/g",
    }
    account.create("importer", {"P": parameter("/imported", {"Fn::ImportValue": "the-group"})})
    found = account.client("ssm").get_parameter(Name="/imported")["Parameter"]["Value"]
    assert found.endswith("log-group:/g:*")


def test_an_import_of_nothing_fails_and_rolls_back(account: Account) -> None:
    account.stacks.append("lost")
    body = account.template({"P": parameter("/lost", {"Fn::ImportValue": "no-such-export"})})
    account.client("cloudformation").create_stack(StackName="lost", TemplateBody=body)
    assert account.status("lost") == "ROLLBACK_COMPLETE"
    assert account.reasons("lost") == {"P": "No export named no-such-export found."}


def test_a_failed_create_leaves_nothing_behind(account: Account) -> None:
    account.stacks.append("failing")
    bad = {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"RetentionInDays": 7, "Invented": 1},
        "DependsOn": "G",
    }
    body = account.template({"G": GROUP, "Bad": bad})
    account.client("cloudformation").create_stack(StackName="failing", TemplateBody=body)
    assert account.status("failing") == "ROLLBACK_COMPLETE"
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/g")["logGroups"] == []
    statuses = [
        event["ResourceStatus"] for event in account.events("failing") if event["LogicalResourceId"] == "G"
    ]
    assert statuses == ["CREATE_IN_PROGRESS", "CREATE_COMPLETE", "DELETE_IN_PROGRESS", "DELETE_COMPLETE"]


def test_a_stack_that_rolled_back_can_only_be_deleted(account: Account) -> None:
    account.stacks.append("dead")
    body = account.template({"P": parameter("/dead", {"Fn::ImportValue": "nothing"})})
    cloudformation = account.client("cloudformation")
    cloudformation.create_stack(StackName="dead", TemplateBody=body)
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        cloudformation.update_stack(StackName="dead", TemplateBody=account.template({"G": GROUP}))
    account.delete("dead")


def test_an_update_that_changes_nothing_is_refused(account: Account) -> None:
    account.create("same", {"G": GROUP})
    with pytest.raises(ClientError, match="No updates are to be performed"):
        account.update("same", {"G": GROUP})


def test_parameters_have_defaults_values_and_kinds(account: Account) -> None:
    account.client("ssm").put_parameter(Name="/kept", Value="from-ssm", Type="String", Overwrite=True)
    parameters = {
        "Days": {"Type": "Number", "Default": 7},
        "Names": {"Type": "CommaDelimitedList", "Default": "a, b"},
        "Kept": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/kept"},
        "Secret": {"Type": "String", "NoEcho": True, "Default": "s3cret"},
    }
    resources = {
        "G": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": "/p", "RetentionInDays": {"Ref": "Days"}},
        },
        "P": parameter("/joined", {"Fn::Join": ["+", {"Ref": "Names"}]}),
        "Q": parameter("/copied", {"Ref": "Kept"}),
    }
    account.create("parameters", resources, Parameters=parameters)
    ssm = account.client("ssm")
    assert ssm.get_parameter(Name="/joined")["Parameter"]["Value"] == "a+b"
    assert ssm.get_parameter(Name="/copied")["Parameter"]["Value"] == "from-ssm"
    account.client("cloudformation").update_stack(
        StackName="parameters",
        TemplateBody=account.template(resources, Parameters=parameters),
        Parameters=[
            {"ParameterKey": "Days", "ParameterValue": "14"},
            {"ParameterKey": "Names", "UsePreviousValue": True},
        ],
    )
    group = account.client("logs").describe_log_groups(logGroupNamePrefix="/p")["logGroups"][0]
    assert group["retentionInDays"] == 14
    shown = account.client("cloudformation").describe_stacks(StackName="parameters")["Stacks"][0][
        "Parameters"
    ]
    assert {p["ParameterKey"]: p["ParameterValue"] for p in shown}["Secret"] == "****"


def test_a_parameter_without_a_value_is_asked_for(account: Account) -> None:
    body = account.template({"G": GROUP}, Parameters={"Needed": {"Type": "String"}})
    with pytest.raises(ClientError, match="Missing parameter Needed"):
        account.client("cloudformation").create_stack(StackName="incomplete", TemplateBody=body)
    assert "incomplete" not in {
        s["StackName"] for s in account.client("cloudformation").list_stacks()["StackSummaries"]
    }


def test_a_change_set_changes_nothing_until_it_is_executed(account: Account) -> None:
    cloudformation = account.client("cloudformation")
    account.stacks.append("reviewed")
    words = {"StackName": "reviewed", "ChangeSetName": "first"}
    cloudformation.create_change_set(
        **words, ChangeSetType="CREATE", TemplateBody=account.template({"G": GROUP})
    )
    change = cloudformation.describe_change_set(**words)["Changes"][0]["ResourceChange"]
    assert (change["Action"], change["LogicalResourceId"]) == ("Add", "G")
    assert account.status("reviewed") == "REVIEW_IN_PROGRESS"
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/g")["logGroups"] == []
    cloudformation.execute_change_set(**words)
    assert account.status("reviewed") == "CREATE_COMPLETE"
    assert len(account.client("logs").describe_log_groups(logGroupNamePrefix="/g")["logGroups"]) == 1


def test_change_sets_of_the_same_name_belong_to_their_own_stacks(account: Account) -> None:
    cloudformation = account.client("cloudformation")
    for name in ("one", "two"):
        account.stacks.append(name)
        body = account.template({"P": parameter(f"/{name}")})
        cloudformation.create_change_set(
            StackName=name, ChangeSetName="cdk", ChangeSetType="CREATE", TemplateBody=body
        )
    cloudformation.delete_change_set(StackName="one", ChangeSetName="cdk")
    with pytest.raises(cloudformation.exceptions.ChangeSetNotFoundException):
        cloudformation.describe_change_set(StackName="one", ChangeSetName="cdk")
    assert (
        cloudformation.describe_change_set(StackName="two", ChangeSetName="cdk")["Status"]
        == "CREATE_COMPLETE"
    )


def test_a_change_set_without_changes_says_so(account: Account) -> None:
    account.create("steady", {"G": GROUP})
    words = {"StackName": "steady", "ChangeSetName": "nothing"}
    cloudformation = account.client("cloudformation")
    cloudformation.create_change_set(
        **words, ChangeSetType="UPDATE", TemplateBody=account.template({"G": GROUP})
    )
    found = cloudformation.describe_change_set(**words)
    assert found["Status"] == "FAILED"
    assert "didn't contain changes" in found["StatusReason"]


def test_a_protected_stack_is_not_deleted(account: Account) -> None:
    cloudformation = account.client("cloudformation")
    body = account.template({"P": parameter("/protected")})
    cloudformation.create_stack(StackName="kept", TemplateBody=body, EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        cloudformation.delete_stack(StackName="kept")


def test_what_nothing_emulates_is_accepted_and_listed(account: Account) -> None:
    metrics = {"CloudWatchMetricsEnabled": True, "MetricName": "w", "SampledRequestsEnabled": False}
    acl = {"Scope": "REGIONAL", "DefaultAction": {"Allow": {}}, "VisibilityConfig": metrics}
    account.create(
        "partly",
        {
            "W": {"Type": "AWS::WAFv2::WebACL", "Properties": acl},
            "M": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "x"}},
            "G": GROUP,
        },
    )
    listed = [one for one in account.control_plane.unemulated(REGION) if one.stack == "partly"]
    assert listed == [Unemulated("partly", "AWS::WAFv2::WebACL", "W")]
    assert str(listed[0]) == "accepted, not emulated: AWS::WAFv2::WebACL (W)"


def test_a_transform_is_refused_by_name(account: Account) -> None:
    body = account.template({"G": GROUP}, Transform="AWS::Serverless-2016-10-31")
    with pytest.raises(ClientError, match="transforms are not emulated: AWS::Serverless"):
        account.client("cloudformation").create_stack(StackName="sam", TemplateBody=body)


def test_a_stack_within_a_stack_gives_its_outputs(account: Account) -> None:
    s3 = account.client("s3")
    s3.create_bucket(Bucket="templates", CreateBucketConfiguration={"LocationConstraint": REGION})

    def nested(days: object) -> dict[str, object]:
        inner = {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": "/in", "RetentionInDays": {"Ref": "Days"}},
        }
        text = account.template(
            {"G": inner}, Parameters={"Days": {"Type": "Number"}}, Outputs={"Name": {"Value": {"Ref": "G"}}}
        )
        s3.put_object(Bucket="templates", Key="inner.json", Body=text)
        url = f"{ENDPOINT}/templates/inner.json"
        return {
            "Type": "AWS::CloudFormation::Stack",
            "Properties": {"TemplateURL": url, "Parameters": {"Days": days}},
        }

    outer = {"Inner": nested(7), "P": parameter("/outer", {"Fn::GetAtt": ["Inner", "Outputs.Name"]})}
    account.create("outer", outer)
    assert account.client("ssm").get_parameter(Name="/outer")["Parameter"]["Value"] == "/in"
    account.update("outer", {**outer, "Inner": nested(14)})
    group = account.client("logs").describe_log_groups(logGroupNamePrefix="/in")["logGroups"][0]
    assert group["retentionInDays"] == 14
    account.delete("outer")
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/in")["logGroups"] == []


def test_a_nested_stack_that_fails_names_its_own_cause(account: Account) -> None:
    s3 = account.client("s3")
    s3.create_bucket(Bucket="broken-templates", CreateBucketConfiguration={"LocationConstraint": REGION})
    text = account.template({"Lost": parameter("/x", {"Fn::ImportValue": "nowhere"})})
    s3.put_object(Bucket="broken-templates", Key="inner.json", Body=text)
    url = f"{ENDPOINT}/broken-templates/inner.json"
    account.stacks.append("around")
    body = account.template(
        {"Inner": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": url}}}
    )
    account.client("cloudformation").create_stack(StackName="around", TemplateBody=body)
    assert account.status("around") == "ROLLBACK_COMPLETE"
    assert account.reasons("around")["Inner"] == (
        "the nested stack ended in ROLLBACK_COMPLETE: Lost: No export named nowhere found."
    )


def test_a_custom_resource_that_no_function_answers_is_refused_by_name(account: Account) -> None:
    thing = {"Type": "Custom::Thing", "Properties": {"ServiceToken": "arn:aws:sns:eu-west-1:1:topic"}}
    reasons = account.refuse("custom", {"Thing": thing})
    assert "custom resources are answered by Lambda functions here" in reasons["Thing"]


def test_others_can_read_while_a_stack_is_made(account: Account) -> None:
    """The data plane reads the account all the time: no answer may break off, no lock hold for good."""
    logs, ssm = account.client("logs"), account.client("ssm")
    done, failures = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                logs.describe_log_groups()
                ssm.describe_parameters()
                account.control_plane.ask("/_modelstacks/health")
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    many = {f"G{n}": {"Type": "AWS::Logs::LogGroup"} for n in range(40)}
    many |= {f"P{n}": parameter(f"/many/{n}") for n in range(40)}
    account.create("many", many)
    account.delete("many")
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_a_circle_is_refused_before_anything_is_made(account: Account) -> None:
    one, other = parameter("/one", {"Ref": "Other"}), parameter("/other", {"Ref": "One"})
    with pytest.raises(ClientError, match="Circular dependency between resources"):
        account.client("cloudformation").create_stack(
            StackName="circle", TemplateBody=account.template({"One": one, "Other": other})
        )
    assert "circle" not in {
        s["StackName"] for s in account.client("cloudformation").list_stacks()["StackSummaries"]
    }


def test_an_update_whose_output_cannot_be_had_is_rolled_back(account: Account) -> None:
    account.create("unsaid", {"G": GROUP}, Outputs={"Name": {"Value": {"Ref": "G"}}})
    body = account.template(
        {"G": GROUP, "P": parameter("/p")}, Outputs={"Name": {"Value": {"Fn::GetAtt": ["G", "Colour"]}}}
    )
    account.client("cloudformation").update_stack(StackName="unsaid", TemplateBody=body)
    assert account.status("unsaid") == "UPDATE_ROLLBACK_COMPLETE"
    assert account.outputs("unsaid") == {"Name": "/g"}
    assert list(account.physical_ids("unsaid")) == ["G"]
    reasons = [event.get("ResourceStatusReason", "") for event in account.events("unsaid")]
    assert any("resource G does not support attribute type Colour" in reason for reason in reasons)


def failing(account: Account) -> str:
    bad = parameter("/never", {"Fn::ImportValue": "no-such-export"}) | {"DependsOn": "G"}
    return account.template({"G": GROUP, "P": bad})


def test_a_failed_create_is_kept_where_rollback_is_disabled_and_can_be_updated(account: Account) -> None:
    cloudformation = account.client("cloudformation")
    account.stacks.append("stays")
    cloudformation.create_stack(StackName="stays", TemplateBody=failing(account), DisableRollback=True)
    assert account.status("stays") == "CREATE_FAILED"
    assert list(account.physical_ids("stays")) == ["G"]
    account.update("stays", {"G": GROUP})


def test_a_failed_update_is_kept_where_rollback_is_disabled(account: Account) -> None:
    account.create("half", {"G": GROUP})
    cloudformation = account.client("cloudformation")
    changed = {"G": {**GROUP, "Properties": {"LogGroupName": "/g", "RetentionInDays": 7}}}
    bad = parameter("/never", {"Fn::ImportValue": "no-such-export"}) | {"DependsOn": "G"}
    body = account.template({**changed, "P": bad})
    cloudformation.update_stack(StackName="half", TemplateBody=body, DisableRollback=True)
    assert account.status("half") == "UPDATE_FAILED"
    group = account.client("logs").describe_log_groups(logGroupNamePrefix="/g")["logGroups"][0]
    assert group["retentionInDays"] == 7
    account.update("half", {"G": GROUP})


def test_a_failed_create_is_deleted_where_that_is_asked_for(account: Account) -> None:
    account.client("cloudformation").create_stack(
        StackName="gone", TemplateBody=failing(account), OnFailure="DELETE"
    )
    found = account.client("cloudformation").list_stacks()["StackSummaries"]
    assert [one["StackStatus"] for one in found if one["StackName"] == "gone"] == ["DELETE_COMPLETE"]


def test_only_an_update_under_way_can_be_cancelled(account: Account) -> None:
    account.create("calm", {"G": GROUP})
    with pytest.raises(ClientError, match="CancelUpdateStack cannot be called from current stack status"):
        account.client("cloudformation").cancel_update_stack(StackName="calm")
