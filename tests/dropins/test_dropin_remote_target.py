"""A target for models that their provider hosts, as two files: its stack has an API and nothing to host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import FIXTURES, ROOT, copy_product, run

SPEC = """\
name: praise
model: {source: hosted-api, model: small, key: praise/key}
architecture: self-hosted
self-hosted: {target: provider-call}
"""
LOCK = "import sys; from modelstacks.cli.main import main; sys.exit(main(['lock', 'praise']))"


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud assembly of a spec whose source and target were dropped in."""
    product = copy_product(tmp_path_factory.mktemp("product"))
    shutil.copy(FIXTURES / "source" / "hosted_api.py", product / "modelstacks" / "sources")
    shutil.copy(FIXTURES / "target" / "provider_call.py", product / "modelstacks" / "targets")
    shutil.copy(FIXTURES / "builder" / "provider_call.py", product / "stacks" / "targets")
    shutil.copy(ROOT / "cdk.json", product)
    (product / "deployments").mkdir()
    (product / "deployments" / "praise.yaml").write_text(SPEC)
    run(product, "-c", LOCK)
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    run(product, "app.py", CDK_CONTEXT_JSON=json.dumps(context), CDK_OUTDIR=str(product / "cdk.out"))
    return product / "cdk.out"


def resources(assembly: Path) -> list[dict[str, Any]]:
    template = json.loads((assembly / "praise-self-hosted.template.json").read_text())
    return list(template["Resources"].values())


def test_its_stack_hosts_nothing(assembly: Path) -> None:
    services = {each["Type"].split("::")[1] for each in resources(assembly)}
    assert services == {"ApiGateway", "IAM", "KMS", "Logs"}


def test_there_is_nothing_to_publish(assembly: Path) -> None:
    assets = json.loads((assembly / "praise-self-hosted.assets.json").read_text())
    assert assets["dockerImages"] == {}
    assert all("executable" not in each["source"] for each in assets["files"].values())
    assert not [path for path in assembly.glob("asset.*") if path.is_dir()]


def test_its_routes_are_the_contracts_and_go_to_the_provider(assembly: Path) -> None:
    methods = [
        each["Properties"] for each in resources(assembly) if each["Type"] == "AWS::ApiGateway::Method"
    ]
    assert len(methods) > 5
    assert all(each["Integration"]["Uri"].startswith("https://models.example/v1/") for each in methods)
