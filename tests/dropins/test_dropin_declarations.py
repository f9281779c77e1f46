"""Targets and sources that are dropped in as single files: everything takes them with no other edit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.drop_in import FIXTURES, ROOT, copy_product, run

TARGETS = ("fargate-spot", "provider-call")
SOURCES = ("hosted-api", "vendored")
ARTIFACT = "model: {source: artifact, path: model, license: MIT}\n"
# What the pages name: the fields and outputs of the two targets.
WORDS = "`cpu`, `spot_percent`; `ClusterName`, `ServiceName`, `LogGroupName`"
NAMES = "ecs-fargate, fargate-spot, provider-call"
FARGATE = "target, cpu, memory_mib, processor, ephemeral_storage_gib, cpu_percent"
REMOTE = "model: {source: hosted-api, model: small, key: praise/key}\n"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product with the files and their pages dropped in, and a project that has a model."""
    folder = copy_product(tmp_path_factory.mktemp("product"))
    shutil.copytree(ROOT / "docs", folder / "docs")
    for kind, room, names in (("target", "targets", TARGETS), ("source", "sources", SOURCES)):
        for name in names:
            shutil.copy(FIXTURES / kind / f"{name.replace('-', '_')}.py", folder / "modelstacks" / room)
            (folder / "docs" / room / f"{name}.md").write_text(f"# {room} `{name}`\n\n{WORDS}\n")
    (folder / "cdk.json").write_text("{}")
    (folder / "model").mkdir()
    shutil.copy(ROOT / "model_artifacts/churn-xgboost/model.json", folder / "model")
    (folder / "model/model.bin").write_bytes(b"binf and what follows")
    return folder


def modelstacks(product: Path, *words: str, code: int = 0) -> str:
    """What a command prints, faults included."""
    program = (
        "import contextlib, sys; from modelstacks.cli.main import main\n"
        "with contextlib.redirect_stderr(sys.stdout): code = main(sys.argv[1:])\n"
        f"assert code == {code}, code"
    )
    return run(product, "-c", program, *words, NO_COLOR="1", COLUMNS="200")


def spec(product: Path, name: str, content: str) -> str:
    path = product / f"{name}.yaml"
    path.write_text(f"name: {name}\n{content}")
    return path.name


def faults(product: Path, content: str) -> list[dict[str, Any]]:
    """The faults of a spec, as `validate --json` reports them."""
    told = modelstacks(product, "validate", "--json", spec(product, "bad", content), code=2)
    found: list[dict[str, Any]] = json.loads(told)["faults"]
    return found


def test_init_writes_one_block_for_each_architecture_and_names_the_other_targets(product: Path) -> None:
    modelstacks(product, "init", "--name", "fresh")
    written = product / "deployments" / "fresh.yaml"
    lines = written.read_text().splitlines()
    [block] = [line for line in lines if line.startswith("# self-hosted:")]
    assert block == "# self-hosted: {target: ecs-fargate, cpu: 1024, memory_mib: 2048}"
    assert "#   or fargate-spot: ECS Fargate tasks of which AWS may take some back" in lines
    written.write_text("\n".join(line.removeprefix("# ") if ": {" in line else line for line in lines))
    assert "valid (fresh, self-hosted)" in modelstacks(product, "validate", "fresh")


@pytest.mark.parametrize("source", SOURCES)
def test_init_writes_a_valid_spec_from_the_source(product: Path, source: str) -> None:
    name = f"from-{source}"
    modelstacks(product, "init", "--name", name, "--source", source, "-a", "self-hosted")
    text = (product / "deployments" / f"{name}.yaml").read_text()
    assert f"source: {source}" in text
    assert yaml.safe_load(text)["name"] == name


def test_the_default_target_stays_the_default(product: Path) -> None:
    file = spec(product, "plain", ARTIFACT + "architecture: self-hosted\n")
    program = (
        "from pathlib import Path; from modelstacks.core.spec.validation import read_spec\n"
        f"print(read_spec(Path({file!r})).self_hosted.target)"
    )
    assert run(product, "-c", program) == "ecs-fargate\n"


def test_a_spec_of_the_target_is_valid(product: Path) -> None:
    file = spec(
        product, "spot", ARTIFACT + "architecture: self-hosted\nself-hosted: {target: fargate-spot}\n"
    )
    assert "valid (spot, self-hosted)" in modelstacks(product, "validate", file)


@pytest.mark.parametrize(
    ("block", "field", "said"),
    [
        (
            "{target: fargate-spott}",
            "self-hosted.target",
            'unknown value; got "fargate-spott"; allowed: ' + NAMES + '; fix: did you mean "fargate-spot"?',
        ),
        ("5", "self-hosted", "must be a mapping of keys to values; got 5"),
        (
            "{target: fargate-spot, spot_percent: 120}",
            "self-hosted.spot_percent",
            "out of range; got 120; allowed: at most 100",
        ),
        (
            "{target: fargate-spot, memory_mib: 2048}",
            "self-hosted.memory_mib",
            (
                "unknown key; allowed: target, cpu, spot_percent; "
                "fix: set target: ecs-fargate, which has this key"
            ),
        ),
        (
            "{spot_percent: 20}",
            "self-hosted.spot_percent",
            f"unknown key; allowed: {FARGATE}; fix: set target: fargate-spot, which has this key",
        ),
        (
            "{architecture: arm64}",
            "self-hosted.architecture",
            f"unknown key; allowed: {FARGATE}; fix: it was renamed to processor",
        ),
        (
            "{target: fargate-spot, architecture: arm64}",
            "self-hosted.architecture",
            "unknown key; allowed: target, cpu, spot_percent; fix: move it to the top level",
        ),
    ],
)
def test_faults_in_a_block_name_the_field_in_the_words_of_its_target(
    product: Path, block: str, field: str, said: str
) -> None:
    [fault] = faults(product, ARTIFACT + f"architecture: self-hosted\nself-hosted: {block}\n")
    parts = [("", "what"), ("got ", "got"), ("allowed: ", "allowed"), ("fix: ", "fix")]
    told = "; ".join(label + fault[part] for label, part in parts if fault[part])
    assert (fault["line"], fault["field"], told) == (4, field, said)


@pytest.mark.parametrize(
    ("model", "field", "what", "allowed"),
    [
        ("{source: hosted-ap, model: m, key: k}", "model.source", "unknown value", "did you mean"),
        ("{model: m, key: k}", "model.source", "is missing", "hosted-api"),
        ("{source: hosted-api, model: m}", "model.key", "is missing", "add key (name of the secret"),
        ("{source: hosted-api, model: m, key: 5}", "model.key", "must be text", "put it in quotes"),
        ("{source: hosted-api, model: m, key: k, path: p}", "model.path", "unknown key", ""),
    ],
)
def test_faults_in_a_model_block_name_the_field_in_the_words_of_its_source(
    product: Path, model: str, field: str, what: str, allowed: str
) -> None:
    [fault] = faults(product, f"model: {model}\narchitecture: self-hosted\n")
    assert (fault["line"], fault["field"], fault["what"]) == (2, field, what)
    assert allowed in fault["allowed"] + fault["fix"]


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        (
            REMOTE + "architecture: self-hosted\n",
            "model.source",
            "ecs-fargate does not support a model that its provider hosts: ",
        ),
        (
            REMOTE + "architecture: managed\n",
            "model.source",
            "sagemaker-endpoint does not support a model that its provider hosts: ",
        ),
        (
            ARTIFACT + "architecture: self-hosted\nself-hosted: {target: provider-call}\n",
            "model.source",
            "provider-call does not support a model made of files: it runs no model itself; use the target ",
        ),
        (
            ARTIFACT + "architecture: self-hosted\nself-hosted: {target: fargate-spot}\n"
            "api: {quota: {requests: 5}}\n",
            "api.quota",
            "fargate-spot does not support api.quota: interrupted requests would count; leave api.quota out",
        ),
    ],
)
def test_a_combination_that_is_refused_is_refused_with_its_reason(
    product: Path, content: str, field: str, said: str
) -> None:
    [fault] = faults(product, content)
    assert fault["field"] == field
    assert fault["what"].startswith(said)


def test_the_schema_has_them(product: Path) -> None:
    run(product, "-m", "modelstacks.core.reference", "docs")
    schema = json.loads((product / "docs/schema/spec.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    remote = yaml.safe_load("name: praise\n" + REMOTE + "architecture: self-hosted\n")
    assert validator.is_valid(remote | {"self-hosted": {"target": "provider-call"}})
    assert validator.is_valid(remote | {"self-hosted": {"target": "fargate-spot", "spot_percent": 30}})
    assert not validator.is_valid(remote | {"self-hosted": {"target": "fargate-spot", "spot_percent": 130}})
    assert not validator.is_valid(remote | {"model": {"source": "hosted-api", "model": "small"}})


def test_the_table_of_features_has_them(product: Path) -> None:
    run(product, "-m", "modelstacks.core.reference", "docs")
    page = (product / "docs/features.md").read_text()
    files, provider = page.split("## A model that its provider hosts, predictive")
    head = "| | `artifact` | `huggingface` | `vendored` | `ecs-fargate` | `fargate-spot` | `provider-call` |"
    assert head in files
    assert "| | `hosted-api` | `ecs-fargate` | `fargate-spot` | `provider-call` |" in provider
    [plain] = [line for line in provider.splitlines() if line.startswith("| none")]
    assert [cell.split()[0] for cell in plain.split("|")[2:7]] == ["yes", "no", "no", "yes", "no"]
    assert "- `spot_percent`: 50. Half of the service survives" in provider


def test_the_contract_tests_hold_for_them(product: Path) -> None:
    for name in ("conftest.py", "test_declarations.py"):
        (product / "tests" / "sources").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / "sources" / name, product / "tests" / "sources")
    shutil.copy(ROOT / "pyproject.toml", product)
    said = run(product, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "tests/sources")
    for name in (*TARGETS, *SOURCES):
        assert f"test_a_refusal_says_what_why_and_what_to_do[{name}] PASSED" in said


def test_a_remote_model_is_locked_by_its_provider_and_name_alone(product: Path) -> None:
    file = spec(
        product, "praise", REMOTE + "architecture: self-hosted\nself-hosted: {target: provider-call}\n"
    )
    told = modelstacks(product, "lock", file)
    assert told == (
        "resolving the model from hosted-api\n"
        "praise.lock.json: written (models.example, small-v1, classification, no licence)\n"
    )
    assert not (product / ".modelstacks" / "models").exists()
    locked = json.loads((product / "praise.lock.json").read_text())["model"]
    assert locked == {
        "kind": "remote",
        "source": "hosted-api",
        "provider": "models.example",
        "model_id": "small-v1",
        "region": None,
        "secret": "praise/key",
        "origin": {"address": "https://models.example/v1"},
        "task": "classification",
        "contracts": ["predictive"],
        "license": None,
    }
    [plan] = json.loads(modelstacks(product, "plan", file, "--json"))["plans"]
    assert plan["model"] == locked
    assert (plan["runtime"], plan["contracts"]) == (None, ["predictive"])
    shown = modelstacks(product, "plan", file)
    assert "small-v1 at models.example" in shown
    assert "secret praise/key" in shown
    assert "1 KMS::Key" in shown
    assert not [name for name in ("LoadBalancer", "EC2::VPC", "ECS::") if name in shown]
    refused = modelstacks(product, "package", "praise.lock.json", code=2)
    assert "there is nothing to package: models.example hosts small-v1" in refused


def test_a_remote_models_lock_is_stale_when_its_block_has_changed(product: Path) -> None:
    rest = "architecture: self-hosted\nself-hosted: {target: provider-call}\n"
    file = spec(product, "stale", REMOTE + rest)
    modelstacks(product, "lock", file)
    spec(product, "stale", REMOTE.replace("small", "large") + rest)
    assert "the spec's model block has changed" in modelstacks(product, "plan", file, code=3)


def test_a_vendors_image_is_pinned_and_refused_by_targets_that_build_the_model_server(product: Path) -> None:
    model = "model: {source: vendored, path: model/model.bin, license: MIT}\n"
    file = spec(product, "boosted", model + "architecture: managed\n")
    told = modelstacks(product, "lock", file)
    assert "loading it" not in told
    locked = json.loads((product / "boosted.lock.json").read_text())["model"]
    assert locked["engine"] == "xgboost-container"
    assert locked["image"]["kind"] == "vendor-image"
    assert locked["image"]["uris"]["eu-west-1"].endswith("/sagemaker-xgboost:3.0-5")
    refused = modelstacks(product, "plan", file, code=2)
    assert "sagemaker-endpoint does not support a model that a vendor's image serves: " in refused


def test_the_spot_targets_plan_says_what_it_needs(product: Path) -> None:
    file = spec(
        product,
        "spot",
        ARTIFACT + "architecture: self-hosted\nself-hosted: {target: fargate-spot, cpu: 2048}\n",
    )
    program = (
        "from pathlib import Path; from modelstacks.core.lock import Lock; import sys\n"
        "from modelstacks.core.plan import make_plan; from modelstacks.core.plan.capacity import capacity\n"
        "from modelstacks.core.spec.validation import read_spec; from support.plans import make_lock\n"
        f"plan = make_plan(read_spec(Path({file!r})), make_lock(), 'spot.lock.json', 'self-hosted')\n"
        "print([(unit.least, unit.most) for unit in capacity(plan) if unit.measure == 'vCPU'])"
    )
    assert run(product, "-c", program) == "[(4.0, 16.0)]\n"
