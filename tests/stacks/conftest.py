"""One synthesis for all the tests here: both architectures of one plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cdk import CONTEXT, Template, use_own_node
from support.plans import make


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    directory = tmp_path_factory.mktemp("cdk.out")
    synthesize([make("self-hosted"), make("managed")], outdir=str(directory), context=CONTEXT)
    return directory


@pytest.fixture(scope="session")
def self_hosted(assembly: Path) -> Template:
    return Template.read(assembly, "churn-self-hosted")


@pytest.fixture(scope="session")
def managed(assembly: Path) -> Template:
    return Template.read(assembly, "churn-managed")


@pytest.fixture(scope="session", params=["self-hosted", "managed"])
def template(request: pytest.FixtureRequest, assembly: Path) -> Template:
    return Template.read(assembly, f"churn-{request.param}")
