"""CloudWatch Logs: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

from typing import Any

from support.control_plane import Account


def test_a_log_group_keeps_its_lines_for_so_long(account: Account) -> None:
    group: dict[str, Any] = {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"LogGroupName": "/kept", "RetentionInDays": 30},
    }
    metric = {"MetricName": "errors", "MetricNamespace": "n", "MetricValue": "1"}
    counted = {
        "Type": "AWS::Logs::MetricFilter",
        "Properties": {
            "LogGroupName": {"Ref": "Group"},
            "FilterPattern": "error",
            "MetricTransformations": [metric],
        },
    }
    account.create("logs", {"Group": group, "Counted": counted})
    logs = account.client("logs")

    def found() -> Any:
        return logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"][0]

    assert found()["retentionInDays"] == 30
    assert logs.describe_metric_filters(logGroupName="/kept")["metricFilters"][0]["filterPattern"] == "error"
    del group["Properties"]["RetentionInDays"]
    account.update("logs", {"Group": group, "Counted": counted})
    assert "retentionInDays" not in found()
    account.delete("logs")
    assert logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"] == []
