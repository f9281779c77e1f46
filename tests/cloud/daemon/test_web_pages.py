"""A web page in the user's browser cannot use the embedded cloud: once as requests, once in Chromium itself.

The page does what was once enough to run code as the user: create a stack with a function.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support.browser import CHROMIUM, Site, browser

from modelstacks.cloud import client
from modelstacks.cloud.daemon.state import State, StateDirectory

TEMPLATE = json.dumps(
    {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Service": "lambda.amazonaws.com"},
                                "Action": "sts:AssumeRole",
                            }
                        ],
                    }
                },
            },
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.12",
                    "Handler": "index.handler",
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"ZipFile": "import os\nos.system('touch /tmp/owned')\ndef handler(e, c): pass"},
                },
            },
        }
    }
)
CREATE = urlencode(
    {
        "Action": "CreateStack",
        "Version": "2010-05-15",
        "StackName": "of-a-page",
        "TemplateBody": TEMPLATE,
        "Capabilities.member.1": "CAPABILITY_IAM",
    }
)
FORM = {"content-type": "application/x-www-form-urlencoded"}
PAGE = "http://127.0.0.1:9999"  # a web server of somebody else on this machine: the same site to a browser


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.Session]:
    project = tmp_path_factory.mktemp("visited")
    with client.start(project) as started:
        yield started
    client.clean(project)


@pytest.fixture(scope="module")
def state(session: client.Session) -> State:
    found = StateDirectory(Path(session.status().project)).read()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def nothing_happens(session: client.Session) -> Iterator[None]:
    """Whatever a test sends: afterwards there is no stack, and the daemon runs."""
    yield
    *_, status = session.reconcile()
    assert status.stacks == ()
    keys = status.credentials
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=status.endpoint_url,
        region_name=status.region,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
    )
    assert cloudformation.describe_stacks()["Stacks"] == []


def port_of(url: str | None) -> int:
    port = urlsplit(url or "").port
    assert port is not None
    return port


def ask(
    url: str | None, method: str, path: str, headers: Mapping[str, str] | None = None, body: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """One request as a browser sends it; `host` is the server's own unless it is given."""
    port = port_of(url)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        sent = {"host": f"localhost:{port}", "content-length": str(len(body.encode())), **(headers or {})}
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, received, answer.read()
    finally:
        connection.close()


def signed(state: State, body: str, **headers: str) -> dict[str, str]:
    """The headers of a call that the administrator would make."""
    request = AWSRequest("POST", f"{state.endpoint_url}/", data=body, headers=FORM)
    keys = Credentials(state.credentials.access_key_id, state.credentials.secret_access_key)
    SigV4Auth(keys, "cloudformation", "us-east-1").add_auth(request)
    return {**{name.lower(): str(value) for name, value in request.headers.items()}, **headers}


class TestTheAccountsEndpoint:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": PAGE, "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
            {"origin": "null", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
            {"origin": "https://example.com", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
            {"sec-fetch-site": "cross-site"},
            {},
        ],
        ids=["no-cors", "sandboxed frame", "form", "image", "no browser"],
    )
    def test_makes_nothing_of_a_request_that_is_not_signed(
        self, state: State, headers: dict[str, str]
    ) -> None:
        status, received, _ = ask(state.endpoint_url, "POST", "/", {**FORM, **headers}, CREATE)
        assert status == 403
        assert not [name for name in received if name.startswith("access-control-")]

    def test_makes_nothing_of_an_action_in_the_address(self, state: State) -> None:
        assert ask(state.endpoint_url, "GET", f"/?{CREATE}")[0] == 403

    @pytest.mark.parametrize("name", ["origin", "sec-fetch-site"])
    def test_refuses_a_page_even_with_a_signature(self, state: State, name: str) -> None:
        headers = signed(state, CREATE, **{name: "same-site" if name == "sec-fetch-site" else PAGE})
        status, _, body = ask(state.endpoint_url, "POST", "/", headers, CREATE)
        assert (status, body) == (403, b'{"message":"Forbidden"}')

    @pytest.mark.parametrize("headers", [{"origin": PAGE}, {}])
    def test_answers_no_preflight(self, state: State, headers: dict[str, str]) -> None:
        wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        status, received, _ = ask(state.endpoint_url, "OPTIONS", "/", {**wanted, **headers})
        assert status == 403
        assert not [name for name in received if name.startswith("access-control-")]

    @pytest.mark.parametrize(
        "host", ["evil.example:{}", "localhost:1", "127.0.0.1.evil.example:{}", "localhost"]
    )
    def test_is_not_reached_through_a_strangers_name(self, state: State, host: str) -> None:
        named = host.format(port_of(state.endpoint_url))
        headers = signed(state, CREATE, host=named)
        status, _, body = ask(state.endpoint_url, "POST", "/", headers, CREATE)
        assert (status, body) == (403, b'{"message":"Forbidden"}')

    @pytest.mark.parametrize(
        "path",
        [
            "/moto-api/reset",
            "/_modelstacks/access-key?id=AKIA",
            "/_modelstacks/open/function-code/x/us-east-1/f",
        ],
    )
    def test_has_no_side_entrance(self, state: State, path: str) -> None:
        status, _, body = ask(state.endpoint_url, "POST" if "reset" in path else "GET", path)
        assert status in (403, 404)
        assert b"secret" not in body


class TestTheDaemonsOwnPort:
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/status"), ("POST", "/shutdown"), ("POST", "/faults")]
    )
    def test_knows_its_callers_by_the_token(self, state: State, method: str, path: str) -> None:
        for authorization in ("", "Bearer ", "Bearer guessed", f"bearer {state.token}x"):
            headers = {"authorization": authorization} if authorization else {}
            assert ask(state.admin_url, method, path, headers)[0] == 401

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": PAGE},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"host": "evil.example"},
        ],
    )
    def test_refuses_a_page_even_with_the_token(self, state: State, headers: dict[str, str]) -> None:
        known = {"authorization": f"Bearer {state.token}", **headers}
        assert ask(state.admin_url, "POST", "/shutdown", known)[0] == 403

    def test_answers_no_preflight(self, state: State) -> None:
        wanted = {"origin": PAGE, "access-control-request-method": "POST"}
        status, received, _ = ask(state.admin_url, "OPTIONS", "/shutdown", wanted)
        assert status == 403
        assert not [name for name in received if name.startswith("access-control-")]


SCRIPT = """
const front = FRONT, admin = ADMIN, create = CREATE;
const form = "application/x-www-form-urlencoded";
const attempts = {
  "cors, a simple form": () => fetch(front, {method: "POST", body: create, headers: {"content-type": form}}),
  "cors, with a signature's header": () => fetch(front, {method: "POST", body: create, headers: {
    "content-type": form,
    authorization: "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/cloudformation/aws4_request"}}),
  "no-cors": () => fetch(front, {
    method: "POST", mode: "no-cors", body: create, headers: {"content-type": form}}),
  "no-cors, by address": () => fetch(front + "?" + create, {mode: "no-cors"}),
  "beacon": async () => navigator.sendBeacon(front, new Blob([create], {type: form})),
  "status": () => fetch(admin + "status"),
  "status with a token": () => fetch(admin + "status", {headers: {authorization: "Bearer guessed"}}),
  "shutdown": () => fetch(admin + "shutdown", {method: "POST", mode: "no-cors"}),
  "image": () => new Promise((done, failed) => {
    const image = new Image(); image.onload = done; image.onerror = failed; image.src = front + "?" + create;
  }),
  "web socket": () => new Promise((done, failed) => {
    const socket = new WebSocket(front.replace("http", "ws"));
    socket.onopen = done; socket.onerror = failed;
  }),
  "form into a frame": () => new Promise((done) => {
    const frame = document.createElement("iframe"); frame.name = "inside"; frame.onload = done;
    document.body.append(frame);
    const sent = document.createElement("form");
    sent.method = "POST"; sent.action = front; sent.target = "inside";
    for (const [name, value] of new URLSearchParams(create)) {
      const field = document.createElement("input");
      field.name = name; field.value = value; sent.append(field);
    }
    document.body.append(sent); sent.submit();
  }),
};
(async () => {
  const results = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try {
      const answer = await attempt();
      results[name] = answer instanceof Response ? answer.type + " " + answer.status : "done";
    } catch (error) { results[name] = "failed"; }
  }
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
class TestChromium:
    def test_gets_nothing_out_of_any_kind_of_request(self, state: State) -> None:
        front, admin = f"{state.endpoint_url}/", f"{state.admin_url}/"
        script = SCRIPT.replace("= FRONT", f"= {json.dumps(front)}").replace(
            "= ADMIN", f"= {json.dumps(admin)}"
        )
        site = Site(script.replace("create = CREATE", f"create = {json.dumps(CREATE)}"))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            running = subprocess.Popen(
                [*browser(profile), "--remote-debugging-port=0", site.url],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                results = site.results.get(timeout=90)
            finally:
                running.terminate()
                running.wait(20)
                site.close()
        assert results == {
            "cors, a simple form": "failed",  # the page may not read the answer, and it is a refusal
            "cors, with a signature's header": "failed",
            "no-cors": "opaque 0",  # sent; what came of it is the fixture's question
            "no-cors, by address": "opaque 0",
            "beacon": "done",
            "status": "failed",
            "status with a token": "failed",
            "shutdown": "opaque 0",
            "image": "failed",
            "web socket": "failed",
            "form into a frame": "done",
        }

    def test_is_sent_away_when_a_strangers_name_leads_here(self, state: State) -> None:
        """What DNS rebinding comes to: the page's own name, and the server's address behind it."""
        port = port_of(state.admin_url)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            shown = subprocess.run(
                [
                    *browser(profile),
                    "--host-resolver-rules=MAP evil.example 127.0.0.1",
                    "--dump-dom",
                    f"http://evil.example:{port}/status",
                ],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        assert '{"message":"Forbidden"}' in shown.stdout
