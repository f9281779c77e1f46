"""CloudWatch and SNS: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
from typing import Any

from support.control_plane import Account


def allow(action: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": "*"}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def test_an_alarm_tells_a_topic(account: Account) -> None:
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "alarms"}},
        "MayPublish": {
            "Type": "AWS::SNS::TopicPolicy",
            "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": document(allow("sns:Publish"))},
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Namespace": "AWS/ApplicationELB",
                "MetricName": "HTTPCode_ELB_5XX_Count",
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 2,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "AlarmActions": [{"Ref": "Topic"}],
                "TreatMissingData": "notBreaching",
                "Dimensions": [{"Name": "LoadBalancer", "Value": "app/a/1"}],
            },
        },
    }
    ids = account.create("alarm", resources)
    cloudwatch = account.client("cloudwatch")

    def alarm() -> Any:
        return cloudwatch.describe_alarms(AlarmNames=[ids["Alarm"]])["MetricAlarms"][0]

    assert (alarm()["Threshold"], alarm()["AlarmActions"]) == (1, [ids["Topic"]])
    assert alarm()["Dimensions"] == [{"Name": "LoadBalancer", "Value": "app/a/1"}]
    attributes = account.client("sns").get_topic_attributes(TopicArn=ids["Topic"])["Attributes"]
    assert "sns:Publish" in attributes["Policy"].replace("SNS:", "sns:")
    other = copy.deepcopy(resources)
    other["Alarm"]["Properties"]["Threshold"] = 5
    assert account.update("alarm", other) == ids
    assert alarm()["Threshold"] == 5
    account.delete("alarm")
    assert cloudwatch.describe_alarms()["MetricAlarms"] == []
