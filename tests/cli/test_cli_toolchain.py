"""What the steps of `up` say of the stacks that the CDK CLI deploys."""

from __future__ import annotations

from modelstacks.adapters.cdk_events import ResourceEvent
from modelstacks.cli.toolchain import by_stack


def test_each_line_of_progress_names_its_stacks() -> None:
    said: list[str] = []
    tell = by_stack(said.append)
    tell(ResourceEvent("churn-managed", "CREATE_IN_PROGRESS", "AWS::CloudFormation::Stack", "churn-managed"))
    tell(ResourceEvent("churn-self-hosted", "CREATE_COMPLETE", "AWS::EC2::VPC", "Vpc", done=1, total=40))
    tell(ResourceEvent("churn-managed", "CREATE_COMPLETE", "AWS::IAM::Role", "Role", done=2, total=30))
    assert said == [
        "churn-managed AWS::CloudFormation::Stack",
        "churn-managed AWS::CloudFormation::Stack, churn-self-hosted 1/40 AWS::EC2::VPC",
        "churn-managed 2/30 AWS::IAM::Role, churn-self-hosted 1/40 AWS::EC2::VPC",
    ]
