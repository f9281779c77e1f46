"""One list of routes: what the server dispatches, counts and describes, and what the REST API is made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from model_server.routes import CONTRACTS, ROUTES, Route, open_routes
from support.drop_in import FIXTURES, ROOT, copy_product, run
from support.model_server import ARTIFACTS, ModelServer

from modelstacks.core import contract

PUBLIC = [route for route in ROUTES if route.public]
JSON = {"content-type": "application/json"}
DROPPED = FIXTURES / "route"


def test_the_toolkit_and_the_server_read_the_same_list() -> None:
    for chosen in ([], list(CONTRACTS)):
        served = [(r.method, r.path, r.summary, r.operation) for r in open_routes(chosen) if r.public]
        made = [(r.method, r.path, r.summary, r.operation) for r in contract.routes(chosen)]
        assert served == made
    assert set(contract.groups()) == set(CONTRACTS)


def test_a_deployment_without_predictions_still_says_whether_it_is_ready() -> None:
    assert [route.path for route in contract.routes([])] == ["/ping", "/openapi.json"]


def test_every_route_has_an_operation_id_and_a_place_of_its_own() -> None:
    assert len({route.operation for route in ROUTES}) == len(ROUTES)
    places = [(route.method, path) for route in ROUTES for path in route.paths("m")]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_every_route_is_dispatched_counted_and_described(churn: ModelServer, route: Route) -> None:
    for path in route.paths("churn"):
        answer = httpx.request(route.method, f"{churn.url}{path}", content=b"{", headers=JSON)
        assert answer.status_code == (200 if route.method == "GET" else 400), path
    assert f'route="{route.path}"' in httpx.get(f"{churn.url}/metrics").text
    described = httpx.get(f"{churn.url}/openapi.json").json()["paths"]
    operations = {one["operationId"] for path in described.values() for one in path.values()}
    assert (route.operation in operations) is route.public


@pytest.mark.parametrize("route", PUBLIC, ids=lambda route: route.operation)
def test_every_route_is_documented(route: Route) -> None:
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    assert f"`{route.method} {route.path}`" in page


def test_a_route_is_one_entry_and_one_handler(tmp_path: Path, logs: Path) -> None:
    """Nothing else names a route: the dropped one is served, counted, described and part of the REST API."""
    product = copy_product(tmp_path)
    server = product / "serving" / "model_server"
    listed = json.loads((server / "routes.json").read_text())
    listed["routes"].append(json.loads((DROPPED / "route.json").read_text()))
    (server / "routes.json").write_text(json.dumps(listed))
    shutil.copy(DROPPED / "column_names.py", server / "protocols")

    environment = {"PYTHONPATH": str(product / "serving")}
    with ModelServer.start(
        ARTIFACTS / "churn-xgboost", logs, model_name="churn", environment=environment
    ) as running:
        answer = httpx.get(f"{running.url}/v2/models/churn/columns")
        assert "mean_radius" in answer.json()["columns"]
        sample = 'model_server_requests_total{route="/v2/models/{model}/columns",status="200"} 1'
        assert sample in httpx.get(f"{running.url}/metrics").text
        described = httpx.get(f"{running.url}/openapi.json").json()["paths"]
        assert described["/v2/models/churn/columns"]["get"]["operationId"] == "columnNames"

    program = (
        "from support.cdk import CONTEXT, use_own_node\n"
        "from support.plans import make\n"
        "use_own_node()\n"
        "from modelstacks.cdk.synth import synthesize\n"
        "synthesize([make('self-hosted'), make('managed')], outdir='cdk.out', context=CONTEXT)\n"
    )
    run(product, "-c", program)
    for stack in ("churn-self-hosted", "churn-managed"):
        template = json.loads((product / "cdk.out" / f"{stack}.template.json").read_text())
        names = {
            resource["Properties"]["OperationName"]
            for resource in template["Resources"].values()
            if resource["Type"] == "AWS::ApiGateway::Method"
        }
        assert "the names of the model's columns" in names
