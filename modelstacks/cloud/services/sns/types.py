"""AWS::SNS: topics, who is subscribed to them, and their policies."""

from __future__ import annotations

import json
from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
    tag_list,
)

_GONE = ("NotFound", "NotFoundException")
_ATTRIBUTES = ("DisplayName", "KmsMasterKeyId", "TracingConfig", "SignatureVersion")


@provides("AWS::SNS::Topic")
class Topic(ResourceType):
    """A topic with the subscriptions written into it. Ref is its ARN."""

    immutable: ClassVar = frozenset({"TopicName", "FifoTopic", "Subscription"})

    def create(self, request: Request) -> Provisioned:
        sns = request.client("sns")
        name = str(request.properties.get("TopicName") or request.generated_name())
        attributes = {key: str(value) for key, value in request.only(*_ATTRIBUTES).items()}
        arn = sns.create_topic(Name=name, Attributes=attributes, Tags=tag_list(request.properties))[
            "TopicArn"
        ]
        for subscription in request.properties.get("Subscription", []):
            sns.subscribe(TopicArn=arn, Protocol=subscription["Protocol"], Endpoint=subscription["Endpoint"])
        return Provisioned(arn, {"TopicArn": arn, "TopicName": name})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        sns = request.client("sns")
        for key in _ATTRIBUTES:
            if before.get(key) != request.properties.get(key):
                value = str(request.properties.get(key, ""))
                sns.set_topic_attributes(
                    TopicArn=current.physical_id, AttributeName=key, AttributeValue=value
                )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("sns").delete_topic(TopicArn=current.physical_id)


@provides("AWS::SNS::Subscription")
class Subscription(ResourceType):
    """One subscription. Ref is its ARN."""

    def create(self, request: Request) -> Provisioned:
        given = request.only("TopicArn", "Protocol", "Endpoint")
        arn = request.client("sns").subscribe(**given, ReturnSubscriptionArn=True)["SubscriptionArn"]
        return Provisioned(arn, {"Arn": arn})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("sns").unsubscribe(SubscriptionArn=current.physical_id)


@provides("AWS::SNS::TopicPolicy")
class TopicPolicy(ResourceType):
    """Who may publish to topics."""

    def create(self, request: Request) -> Provisioned:
        document = request.properties["PolicyDocument"]
        text = document if isinstance(document, str) else json.dumps(document)
        for topic in request.properties["Topics"]:
            request.client("sns").set_topic_attributes(
                TopicArn=topic, AttributeName="Policy", AttributeValue=text
            )
        return Provisioned(request.generated_name())

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None
