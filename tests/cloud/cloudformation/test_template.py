"""Templates: parsing, intrinsic functions, conditions, order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstacks.cloud.cloudformation.template import (
    NO_VALUE,
    TemplateError,
    condition_holds,
    creation_order,
    parse,
    references,
    resolve,
)


class Names:
    """A scope of fixed values."""

    def ref(self, name: str) -> Any:
        return {"Env": "prod", "Bucket": "bucket-1", "Flag": True}[name]

    def attribute(self, logical_id: str, name: str) -> Any:
        return f"{logical_id}/{name}"

    def condition(self, name: str) -> bool:
        return {"Yes": True, "No": False}[name]

    def mapping(self, name: str) -> Mapping[str, Any]:
        return {"Table": {"a": {"b": "found"}}}[name]

    def exported(self, name: str) -> Any:
        return {"shared": "imported"}[name]

    def zones(self, region: str) -> list[str]:
        return [f"{region or 'here'}-a", f"{region or 'here'}-b"]

    def dynamic(self, service: str, reference: str) -> str:
        return f"<{service} {reference}>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Env"}, "prod"),
        ({"Fn::GetAtt": ["Bucket", "Arn"]}, "Bucket/Arn"),
        ({"Fn::GetAtt": "Nested.Outputs.Url"}, "Nested/Outputs.Url"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Env"}, 3]]}, "a-prod-3"),
        ({"Fn::Sub": "s3://${Bucket}/${Bucket.Arn}/${!literal}"}, "s3://bucket-1/Bucket/Arn/${literal}"),
        ({"Fn::Sub": ["${Own}-${Env}", {"Own": {"Ref": "Bucket"}}]}, "bucket-1-prod"),
        ({"Fn::Select": ["1", ["a", "b"]]}, "b"),
        ({"Fn::Select": [0, {"Fn::Split": ["/", "x/y"]}]}, "x"),
        ({"Fn::If": ["Yes", "then", "else"]}, "then"),
        ({"Fn::If": ["No", {"Ref": "NoSuchThing"}, "else"]}, "else"),
        ({"Fn::FindInMap": ["Table", "a", "b"]}, "found"),
        ({"Fn::ImportValue": "shared"}, "imported"),
        ({"Fn::GetAZs": ""}, ["here-a", "here-b"]),
        ({"Fn::Base64": "ab"}, "YWI="),
        ({"Fn::Cidr": ["10.0.0.0/16", 2, "8"]}, ["10.0.0.0/24", "10.0.1.0/24"]),
        ({"Fn::ToJsonString": {"a": {"Ref": "Env"}}}, '{"a": "prod"}'),
        ({"Fn::Length": ["a", "b"]}, 2),
        ({"a": {"Ref": "AWS::NoValue"}, "b": 1}, {"b": 1}),
        ([{"Ref": "AWS::NoValue"}, 1], [1]),
        ("{{resolve:ssm:/name}}!", "<ssm /name>!"),
        ({"Fn::Join": ["", ["x", True]]}, "xtrue"),
    ],
)
def test_a_function_becomes_what_it_stands_for(value: Any, expected: Any) -> None:
    assert resolve(value, Names()) == expected


def test_the_value_that_is_none_is_told_from_one_that_is_missing() -> None:
    assert resolve({"Ref": "AWS::NoValue"}, Names()) is NO_VALUE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Fn::Select": [5, ["a"]]}, "Fn::Select cannot select nonexistent value at index 5"),
        ({"Fn::FindInMap": ["Table", "a", "z"]}, "Unable to get mapping for Table::a::z"),
        ({"Fn::Invented": 1}, "the function Fn::Invented is not known"),
    ],
)
def test_a_function_that_cannot_be_resolved_is_refused(value: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        resolve(value, Names())


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"Fn::Equals": [{"Ref": "Env"}, "prod"]}, True),
        ({"Fn::Equals": [{"Ref": "Flag"}, "true"]}, True),
        ({"Fn::Not": [{"Condition": "Yes"}]}, False),
        ({"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]}, False),
        ({"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]}, True),
    ],
)
def test_a_condition_holds_or_not(condition: Any, holds: bool) -> None:
    assert condition_holds(condition, Names()) is holds


def test_a_template_in_yaml_may_use_the_short_form() -> None:
    template = parse(
        "Resources:\n  A:\n    Type: T\n    Properties:\n      One: !Ref B\n      Two: !GetAtt B.Arn\n"
        "      Three: !Join ['-', [!Sub 'x${B}', 2024-01-01]]\n"
    )
    assert template["Resources"]["A"]["Properties"] == {
        "One": {"Ref": "B"},
        "Two": {"Fn::GetAtt": ["B", "Arn"]},
        "Three": {"Fn::Join": ["-", [{"Fn::Sub": "x${B}"}, "2024-01-01"]]},
    }


@pytest.mark.parametrize("body", ["{}", "Resources: {}", "- a", "{ not: [closed", '{"Resources": {"A": {}}}'])
def test_what_is_no_template_is_refused(body: str) -> None:
    with pytest.raises(TemplateError, match="Template format error"):
        parse(body)


def test_references_are_found_wherever_they_stand() -> None:
    value = [
        {"Ref": "A"},
        {"x": {"Fn::GetAtt": ["B", "Arn"]}},
        {"Fn::Sub": ["${C}${D.Arn}${Own}${!E}", {"Own": {"Ref": "F"}}]},
    ]
    assert set(references(value)) == {"A", "B", "C", "D", "F"}


def test_resources_that_depend_on_each_other_in_a_circle_are_named() -> None:
    with pytest.raises(TemplateError, match=r"Circular dependency between resources: \[.*A.*B|B.*A"):
        creation_order({"A": {"Properties": {"x": {"Ref": "B"}}}, "B": {"DependsOn": "A"}})


def test_a_dependency_on_nothing_is_named() -> None:
    with pytest.raises(TemplateError, match=r"Unresolved resource dependencies \[Ghost\]"):
        creation_order({"A": {"DependsOn": ["Ghost"]}})


@given(st.lists(st.integers(min_value=0, max_value=20), min_size=1, max_size=20, unique=True), st.data())
def test_everything_is_made_after_what_it_needs(numbers: list[int], data: st.DataObject) -> None:
    """Any set of resources without circles, in whatever order the template lists them."""
    needs = {
        number: data.draw(st.lists(st.sampled_from(earlier), unique=True))
        if (earlier := [n for n in numbers if n < number])
        else []
        for number in numbers
    }
    resources = {f"R{n}": {"Properties": {"x": [{"Ref": f"R{m}"} for m in needs[n]]}} for n in numbers}
    order = creation_order(resources)
    assert sorted(order) == sorted(resources)
    assert all(order.index(f"R{m}") < order.index(f"R{n}") for n in numbers for m in needs[n])
