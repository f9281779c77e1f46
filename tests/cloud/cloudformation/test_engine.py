"""The engine: order, rollback, replacement, clean-up. Its resource type only remembers what it was asked."""

from __future__ import annotations

from typing import Any

import pytest

from modelstacks.cloud.cloudformation.engine import Engine, OperationFailedError
from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
)
from modelstacks.cloud.cloudformation.schedule import InterruptedByUserError
from modelstacks.cloud.cloudformation.scope import StackResources
from modelstacks.cloud.cloudformation.template import TemplateError


class Thing(ResourceType):
    """Exists under `made`; fails when told to."""

    immutable = frozenset({"Name"})

    def __init__(self) -> None:
        self.made: dict[str, Properties] = {}
        self.log: list[str] = []
        self.undeletable: set[str] = set()
        self.unstable: dict[str, list[str]] = {}  # logical id -> what it answers until it is stable
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

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        answers = self.unstable.get(request.logical_id)
        if not answers or ("Size" in request.properties and request.properties["Size"] == 1):
            return current
        if (answer := answers[0]) == "never":
            return None
        answers.pop(0)
        if answer == "fails":
            raise ResourceError("its replicas died")
        return None

    def stabilises_within(self, request: Request) -> float:
        return 100.0

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


class Clock:
    """A pace whose rests take ten seconds and are written into a log; it can be interrupted."""

    def __init__(self, log: list[str]) -> None:
        self.seconds, self.log, self.interrupt_at = 0.0, log, 1e9

    def now(self) -> float:
        return self.seconds

    def check(self) -> None:
        if self.seconds >= self.interrupt_at:
            raise InterruptedByUserError

    def rest(self, *, began: bool) -> None:
        self.seconds += 10
        self.log.append("rest" if began else "rest on")

    def until_restored(self) -> Clock:
        return Clock(self.log)


class Case:
    """A stack of Things, and what was said about it."""

    def __init__(self) -> None:
        self.world = World()
        self.stack = StackResources()
        self.events: list[tuple[str, str, str | None]] = []
        self.statuses: list[str] = []
        self.clock = Clock(self.world.thing.log)
        self.engine = Engine(
            self.world, "s", "arn:s", self._record, lambda status, _: self.statuses.append(status), self.clock
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


class TestAResourceThatTakesTime:
    def test_holds_up_only_what_depends_on_it(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["not yet", "not yet"]
        log = case.world.thing.log
        case.stack.template = {"Resources": {"A": thing(), "B": thing(Of={"Ref": "A"}), "C": thing()}}
        case.engine.create(case.stack)
        assert log == ["create A", "create C", "rest", "create B"]

    def test_is_in_progress_until_it_is_stable(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["not yet", "not yet"]
        case.create(A=thing())
        assert [status for name, status, _ in case.events if name == "A"] == [
            "CREATE_IN_PROGRESS",
            "CREATE_IN_PROGRESS",
            "CREATE_COMPLETE",
        ]

    def test_fails_the_stack_where_it_fails(self, case: Case) -> None:
        case.world.thing.unstable = {"A": ["not yet", "fails"], "C": ["never"]}
        with pytest.raises(OperationFailedError, match=r"failed to create: \[A\]"):
            case.create(A=thing(), B=thing(Of={"Ref": "A"}), C=thing())
        assert case.reason("A") == "its replicas died"
        assert case.reason("C") == "Resource creation cancelled"
        assert case.world.thing.made == {}
        assert not any(name == "B" for name, _, _ in case.events)
        assert case.statuses == ["ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"]

    def test_is_given_up_when_its_time_is_over(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["never"]
        with pytest.raises(OperationFailedError):
            case.create(A=thing())
        assert case.reason("A") == "Resource timed out waiting for completion (Resource ARN: A-1)"
        assert case.clock.seconds == 110

    def test_is_kept_as_it_is_where_failures_are_to_be_kept(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["not yet", "fails"]
        case.engine.keep_failed = True
        with pytest.raises(OperationFailedError):
            case.create(A=thing())
        assert list(case.world.thing.made) == ["A-1"]
        assert case.statuses == ["CREATE_FAILED"]

    def test_that_failed_and_was_kept_is_created_anew_by_the_next_update(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["not yet", "fails"]
        case.engine.keep_failed = True
        with pytest.raises(OperationFailedError):
            case.create(A=thing())
        case.update(A=thing())
        assert list(case.world.thing.made) == ["A-2"]

    def test_whose_update_fails_is_restored_and_waited_for(self, case: Case) -> None:
        case.create(A=thing(Size=1), B=thing(Of={"Ref": "A"}))
        case.world.thing.unstable["A"] = ["not yet", "not yet", "fails"]
        with pytest.raises(OperationFailedError, match=r"failed to update: \[A\]"):
            case.update(A=thing(Size=2), B=thing(Of={"Ref": "A"}, More=1))
        assert case.world.thing.made["A-1"] == {"Size": 1}
        assert case.world.thing.log == ["update A", "rest", "update A"]
        assert case.statuses[-1] == "UPDATE_ROLLBACK_COMPLETE"

    def test_that_cannot_be_restored_is_named_and_the_others_are_restored(self, case: Case) -> None:
        case.create(A=thing(Size=3), B=thing(Size=3, After={"Ref": "A"}))
        case.world.thing.unstable = {"A": ["fails"], "C": ["fails"]}
        with pytest.raises(OperationFailedError):
            case.update(A=thing(Size=1), B=thing(Size=1, After={"Ref": "A"}), C=thing(After={"Ref": "B"}))
        assert case.statuses[-1] == "UPDATE_ROLLBACK_FAILED"
        assert case.world.thing.made["B-2"] == {"Size": 3, "After": "A-1"}

    def test_is_not_waited_for_after_a_cancelled_update(self, case: Case) -> None:
        case.create(A=thing(Size=1))
        case.world.thing.unstable["A"] = ["never"]
        case.clock.interrupt_at = 30
        with pytest.raises(OperationFailedError, match="User Initiated"):
            case.update(A=thing(Size=2))
        assert case.reason("A") == "Resource update cancelled"
        assert case.world.thing.made["A-1"] == {"Size": 1}
        assert case.statuses == ["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"]

    def test_lets_go_when_its_stack_is_deleted_meanwhile(self, case: Case) -> None:
        case.world.thing.unstable["A"] = ["never"]
        case.clock.interrupt_at = 30
        with pytest.raises(InterruptedByUserError):
            case.create(A=thing())
        case.engine.delete(case.stack)
        assert case.world.thing.made == {}


def test_a_rollback_restores_what_is_needed_before_what_needs_it(case: Case) -> None:
    case.create(A=thing(Size=1), B=thing(Of={"Ref": "A"}, Size=1))
    with pytest.raises(OperationFailedError):
        case.update(A=thing(Size=2), B=thing(Of={"Ref": "A"}, Size=2), C=thing(Fail=True, Of={"Ref": "B"}))
    assert case.world.thing.log == ["update A", "update B", "update A", "update B"]
