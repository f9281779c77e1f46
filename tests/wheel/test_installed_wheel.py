"""The wheel in a clean virtual environment and an empty folder: what it brings, and a new project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.installation import Installation, install

pytestmark = pytest.mark.e2e


def test_only_modelstacks_can_be_imported(installation: Installation, tmp_path: Path) -> None:
    program = (
        "import importlib.util as u, modelstacks.cdk\n"
        "print(modelstacks.cdk.__file__)\n"
        "print([n for n in ('stacks', 'serving', 'model_server', 'lambda') if u.find_spec(n)])"
    )
    done = installation.run(tmp_path, "python3", "-c", program)
    file, others = done.stdout.splitlines()
    assert Path(file).is_relative_to(installation.environment)
    assert others == "[]"


def test_every_module_finds_what_it_imports(installation: Installation, tmp_path: Path) -> None:
    """The extras are complete: a module that needs what only developers install fails here."""
    program = (
        "import importlib, pkgutil, modelstacks\n"
        "for found in pkgutil.walk_packages(modelstacks.__path__, 'modelstacks.'):\n"
        "    if not found.name.endswith('__main__') and '.project_template' not in found.name:\n"
        "        importlib.import_module(found.name)\n"
        "print('whole')"
    )
    done = installation.run(tmp_path, "python3", "-c", program)
    assert done.stdout == "whole\n", done.stderr


def test_a_new_project_is_valid_and_locked(installation: Installation, project: Path) -> None:
    assert "valid" in installation.modelstacks(project, "validate")
    assert (
        json.loads((project / "deployments" / "churn.lock.json").read_text())["model"]["engine"] == "xgboost"
    )


def test_the_cdk_synthesizes_a_new_project_with_the_extra_synth_alone(
    wheel: Path, project: Path, tmp_path: Path
) -> None:
    synth = install(wheel, "synth", tmp_path / "environment")
    assert synth.run(tmp_path, "python3", "-c", "import boto3").returncode == 1
    cdk, out = str(project / "node_modules" / ".bin" / "cdk"), tmp_path / "cdk.out"
    done = synth.run(project, cdk, "synth", "--quiet", "--output", str(out), "-c", "architecture=both")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in out.glob("*.template.json")}
    assert made == {"churn-self-hosted.template.json", "churn-managed.template.json"}
    [image] = [path for path in out.glob("asset.*") if (path / "Dockerfile").exists()]
    assert (image / "model_server" / "__main__.py").is_file()
    assert not list(image.rglob("__pycache__"))
    assert list(out.glob("asset.*/handler.py"))


def test_an_app_with_its_own_stacks_package_synthesizes_the_construct(
    installation: Installation, shop: Path, tmp_path: Path
) -> None:
    cdk = str(shop / "node_modules" / ".bin" / "cdk")
    done = installation.run(shop, cdk, "synth", "--quiet", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    template = json.loads((tmp_path / "shop.template.json").read_text())
    kinds = [each["Type"] for each in template["Resources"].values()]
    assert (
        kinds.count("AWS::EC2::VPC") == kinds.count("AWS::KMS::Key") == kinds.count("AWS::ECS::Service") == 1
    )
    # ECR's two and S3's are made; the one for logs is theirs.
    assert kinds.count("AWS::EC2::VPCEndpoint") == 4
