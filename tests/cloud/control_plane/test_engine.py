"""The engine: order, rollback, replacement, clean-up. Its resource type only remembers what it was asked."""

from __future__ import annotations

from typing import Any

import pytest

from modelstacks.cloud.control_plane.engine import Engine, OperationFailedError, StackResources
from modelstacks.cloud.control_plane.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
)
from modelstacks.cloud.control_plane.template import TemplateError


class Thing(ResourceType):
    """Exists under `made`; fails when told to."""

    immutable = frozenset({"Name"})

    def __init__(self) -> None:
        self.made: dict[str, Properties] = {}
        self.log: list[str] = []
        self.undeletable: set[str] = set()
        self.count = 0

    def create(self, request: Request) -> Provisioned:
        if request.properties.get("Fail"):
            raise ResourceError("it was told to fail")
        self.count += 1
        physical_id = f"{request.logical_id}-{self.count}"
        self.made[physical_id] = request.properties
        self.log.append(f"create {request.logical_id}")
        return Provisioned(physical_id, {"Arn": f"arn:{physical_id}"})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        if request.properties.get("Fail"):
            raise ResourceError("it was told to fail")
        self.log.append(f"update {request.logical_id}")
        self.made[current.physical_id] = request.properties
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        if request.logical_id in self.undeletable:
            raise ResourceError("somebody still needs it")
        self.log.append(f"delete {request.logical_id}")
        del self.made[current.physical_id]


class World:
    account, region = "123456789012", "eu-west-1"

    def __init__(self) -> None:
        self.thing = Thing()

    def type(self, name: str) -> tuple[ResourceType, bool]:
        return (self.thing, True) if name == "Thing" else (Thing(), False)

    def exported(self, name: str) -> Any:
        raise TemplateError(f"No export named {name} found.")

    def zones(self, region: str) -> list[str]:
        return [f"{region}a"]

    def dynamic(self, service: str, reference: str) -> str:
        raise TemplateError("none")


class Case:
    """A stack of Things, and what was said about it."""

    def __init__(self) -> None:
        self.world = World()
        self.stack = StackResources()
        self.events: list[tuple[str, str, str | None]] = []
        self.statuses: list[str] = []
        self.engine = Engine(
            self.world, "s", "arn:s", self._record, lambda status, _: self.statuses.append(status)
        )

    def _record(
        self, logical_id: str, physical_id: str, type_name: str, status: str, reason: str | None = None
    ) -> None:
        self.events.append((logical_id, status, reason))

    def create(self, **resources: Any) -> None:
        self.stack.template = {"Resources": resources}
        self.engine.create(self.stack)
        self.world.thing.log.clear()

    def update(self, **resources: Any) -> None:
        self.engine.update(self.stack, {"Resources": resources}, {})

    def reason(self, logical_id: str) -> str | None:
        return next(
            reason
            for name, status, reason in self.events
            if name == logical_id and status.endswith("_FAILED")
        )


def thing(*, policy: dict[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"Type": "Thing", "Properties": properties, **(policy or {})}


@pytest.fixture
def case() -> Case:
    return Case()


def test_references_reach_what_was_made(case: Case) -> None:
    case.create(
        B=thing(Of={"Ref": "A"}, Arn={"Fn::GetAtt": ["A", "Arn"]}, Here={"Ref": "AWS::Region"}), A=thing()
    )
    assert case.world.thing.made["B-2"] == {"Of": "A-1", "Arn": "arn:A-1", "Here": "eu-west-1"}


def test_a_failed_create_deletes_what_was_made_and_says_why(case: Case) -> None:
    with pytest.raises(OperationFailedError, match=r"failed to create: \[B\]"):
        case.create(A=thing(), B=thing(Fail=True, Of={"Ref": "A"}), C=thing(Of={"Ref": "B"}))
    assert case.world.thing.made == {}
    assert case.world.thing.log == ["create A", "delete A"]
    assert case.reason("B") == "it was told to fail"
    assert case.statuses == ["ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"]


def test_an_attribute_that_does_not_exist_fails_the_resource_that_asks_for_it(case: Case) -> None:
    with pytest.raises(OperationFailedError, match=r"\[B\]"):
        case.create(A=thing(), B=thing(Of={"Fn::GetAtt": ["A", "Colour"]}))
    assert (
        case.reason("B") == "Template error: resource A does not support attribute type Colour in Fn::GetAtt"
    )


def test_an_update_touches_only_what_has_changed(case: Case) -> None:
    case.create(A=thing(Size=1), B=thing(Of={"Ref": "A"}))
    case.update(A=thing(Size=2), B=thing(Of={"Ref": "A"}))
    assert case.world.thing.log == ["update A"]
    assert case.world.thing.made["A-1"] == {"Size": 2}


def test_a_change_of_what_is_fixed_replaces_and_cleans_up_last(case: Case) -> None:
    case.create(A=thing(Name="old"), B=thing(Of={"Ref": "A"}))
    case.update(A=thing(Name="new"), B=thing(Of={"Ref": "A"}))
    assert case.world.thing.log == ["create A", "update B", "delete A"]
    assert case.world.thing.made == {"A-3": {"Name": "new"}, "B-2": {"Of": "A-3"}}


def test_what_the_template_no_longer_names_is_deleted(case: Case) -> None:
    case.create(A=thing(), B=thing(Of={"Ref": "A"}))
    case.update(A=thing())
    assert list(case.world.thing.made) == ["A-1"]
    assert list(case.stack.resources) == ["A"]


def test_a_failed_update_puts_everything_back(case: Case) -> None:
    case.create(A=thing(Size=1), B=thing(Name="old"), D=thing())
    before = dict(case.world.thing.made)
    with pytest.raises(OperationFailedError, match=r"failed to create: \[E\]"):
        case.update(A=thing(Size=2), B=thing(Name="new"), C=thing(), E=thing(Fail=True, After={"Ref": "C"}))
    assert case.world.thing.made == before
    assert list(case.stack.resources) == ["A", "B", "D"]
    assert case.stack.resources["A"].request.properties == {"Size": 1}
    assert case.statuses[-1] == "UPDATE_ROLLBACK_COMPLETE"


def test_after_a_failed_update_the_next_one_starts_from_the_old_state(case: Case) -> None:
    case.create(A=thing(Size=1))
    with pytest.raises(OperationFailedError):
        case.update(A=thing(Size=2), B=thing(Fail=True))
    case.update(A=thing(Size=3))
    assert case.world.thing.made == {"A-1": {"Size": 3}}


def test_deletion_goes_backwards_and_keeps_what_is_to_be_kept(case: Case) -> None:
    case.create(
        A=thing(policy={"DeletionPolicy": "Retain"}), B=thing(Of={"Ref": "A"}), C=thing(Of={"Ref": "B"})
    )
    case.engine.delete(case.stack)
    assert case.world.thing.log == ["delete C", "delete B"]
    assert list(case.world.thing.made) == ["A-1"]
    assert ("A", "DELETE_SKIPPED", None) in case.events


def test_what_cannot_be_deleted_is_named_and_can_be_tried_again(case: Case) -> None:
    case.create(A=thing(), B=thing())
    case.world.thing.undeletable = {"A"}
    with pytest.raises(OperationFailedError, match=r"failed to delete: \[A\]"):
        case.engine.delete(case.stack)
    assert case.reason("A") == "somebody still needs it"
    case.world.thing.undeletable = set()
    case.engine.delete(case.stack)
    assert case.world.thing.made == {}


def test_a_replaced_resource_with_a_retain_policy_lives_on(case: Case) -> None:
    keep = {"UpdateReplacePolicy": "Retain"}
    case.create(A=thing(policy=keep, Name="old"))
    case.update(A=thing(policy=keep, Name="new"))
    assert case.world.thing.made == {"A-1": {"Name": "old"}, "A-2": {"Name": "new"}}


def test_a_resource_whose_condition_does_not_hold_is_not_made(case: Case) -> None:
    case.stack.template = {
        "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
        "Resources": {
            "A": {**thing(), "Condition": "Never"},
            "B": thing(Of={"Fn::If": ["Never", {"Ref": "A"}, "nothing"]}),
        },
    }
    case.engine.create(case.stack)
    assert case.world.thing.made == {"B-1": {"Of": "nothing"}}


def test_what_nothing_emulates_can_still_be_referred_to(case: Case) -> None:
    case.create(W={"Type": "AWS::Unknown::Thing"}, A=thing(Of={"Fn::GetAtt": ["W", "Arn"]}))
    assert case.world.thing.made["A-1"] == {"Of": "arn:aws:not-emulated:eu-west-1:123456789012:W/Arn"}
    assert not case.stack.resources["W"].emulated


def test_a_change_of_type_is_refused(case: Case) -> None:
    case.create(A=thing())
    with pytest.raises(OperationFailedError):
        case.update(A={"Type": "AWS::Unknown::Thing", "Properties": {"x": 1}})
    assert case.reason("A") == (
        "Update of resource type is not permitted. The new template modifies resource type of "
        "the following resources: [A]"
    )
