"""Validation beyond the table of bad specs: good specs, several files, words for every kind of fault."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core.core_schema import ErrorType
from support.project import Project

from modelstacks.core.errors import SpecInvalid, did_you_mean
from modelstacks.core.reference import pages
from modelstacks.core.spec.documents import load_document
from modelstacks.core.spec.validation import json_schema, read_spec, read_specs

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "deployments").glob("*.yaml"))
BAD_SPECS = sorted((Path(__file__).parent / "bad_specs").glob("*.yaml"))
SCHEMA_LINE = "# yaml-language-server: $schema=../docs/schema/spec.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_names_its_schema_for_editors(path: Path) -> None:
    assert read_spec(path).name == path.stem
    assert path.read_text().splitlines()[0] == SCHEMA_LINE
    jsonschema.Draft202012Validator(json_schema()).validate(load_document(path).data)


def test_the_pages_made_from_declarations_are_in_step() -> None:
    stale = [name for name, content in pages().items() if (ROOT / "docs" / name).read_text() != content]
    assert stale == [], "run: python -m modelstacks.core.reference"


def test_the_schema_refuses_most_of_what_we_refuse() -> None:
    """An editor sees the faults of single fields; only rules across fields need `validate`."""
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    passed = []
    for path in BAD_SPECS:
        try:
            data = load_document(path).data
        except SpecInvalid:
            continue
        if validator.is_valid(data):
            passed.append(path.stem)
    assert passed == [
        "api-quota-without-keys",
        "aws-zones-by-name",
        "aws-zones-elsewhere",
        "aws-zones-twice",
        "aws-zones-without-vpc-links",
        "fargate-memory-between-sizes",
        "fargate-memory-unknown",
        "model-path-absolute",
        "model-path-bucket-alone",
        "model-path-leaves-the-project",
        "model-path-of-another-scheme",
        "model-path-with-backslashes",
        "network-an-address",
        "network-host-bits",
        "network-not-a-range",
        "network-of-docker",
        "network-public",
        "network-too-large",
        "network-too-small-for-the-replicas",
        "network-too-small",
        "scaling-crossed",
        "scaling-no-replicas-self-hosted",
        "scaling-no-replicas",
        "server-body-too-large-for-managed",
        "tags-of-aws",
    ]


def test_faults_come_in_the_order_of_files_and_lines(project: Project) -> None:
    specs = [project.spec(name, rest="architecture: x\napi: {auth: y}\n") for name in ("wine", "churn")]
    with pytest.raises(SpecInvalid) as refused:
        read_specs(specs)
    assert [(fault.file, fault.line) for fault in refused.value.faults] == [
        ("deployments/churn.yaml", 3),
        ("deployments/churn.yaml", 4),
        ("deployments/wine.yaml", 3),
        ("deployments/wine.yaml", 4),
    ]


VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "name",
    "model",
    "architecture",
    "api",
    "scaling",
    "server",
    "self-hosted",
    "managed",
    "logs",
    "tags",
    "aws",
)


@settings(max_examples=150, deadline=None)
@given(
    field=st.sampled_from(FIELDS),
    value=VALUES,
    inner=st.sampled_from(["", "target", "source", "throttle", "zones"]),
)
def test_any_value_anywhere_is_valid_or_a_fault_in_our_words(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object, inner: str
) -> None:

    data: dict[str, object] = {
        "name": "churn",
        "model": {"source": "artifact", "path": "models/churn"},
        "architecture": "managed",
        field: {inner: value} if inner else value,
    }
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    try:
        read_spec(path)
    except SpecInvalid as error:
        for fault in error.faults:
            assert fault.what
            assert "Input should" not in str(fault)  # pydantic's own words
            assert "Traceback" not in str(fault)


def test_no_error_type_of_pydantic_is_without_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that no field raises today have one too: a new field must not bring pydantic's to a user."""
    from modelstacks.core.spec import validation

    document = load_document(EXAMPLES[0])
    for kind in get_args(ErrorType):
        details = {
            "type": kind,
            "loc": ("name",),
            "msg": "Input should be different",
            "input": 3,
            "ctx": _Anything(),
        }
        fault = validation._fault(document, details)  # type: ignore[arg-type]
        assert fault.what, kind
        assert "Input should" not in str(fault), kind


class _Anything(dict[str, object]):
    """A context that has whatever is asked for."""

    def __missing__(self, key: str) -> str:
        return "'this'"


@pytest.mark.parametrize(
    ("got", "suggestion"),
    [
        ("manged", 'did you mean "managed"?'),
        ("MANAGED", 'did you mean "managed"?'),
        ("kubernetes", ""),
        (3, ""),
        (None, ""),
    ],
)
def test_a_near_word_is_suggested(got: object, suggestion: str) -> None:
    assert did_you_mean(got, ["managed", "self-hosted"]) == suggestion
