"""Signatures as SDKs make them are accepted; any that was made for something else is not."""

from __future__ import annotations

import hashlib
import hmac
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.account.signatures import Fault, Refusal, read, verify
from modelstacks.cloud.host.wire import Request

REGION = "us-east-1"
KEY = AccessKey("AKIAEXAMPLE", "secret")
SESSION = AccessKey("ASIAEXAMPLE", "secret", "a-token/with+signs=", time.time() + 3600)
S3 = "http://localhost:4566/bucket/a%20key%2Bplus"


def keys(key: AccessKey) -> Credentials:
    return Credentials(key.access_key_id, key.secret_access_key, key.session_token)


def sent(request: AWSRequest) -> Request:
    """What arrives of a request that botocore has prepared."""
    prepared = request.prepare()
    url = urlsplit(prepared.url)
    headers = [(name.lower(), _text(value)) for name, value in prepared.headers.items()]
    headers = [("host", url.netloc), *(pair for pair in headers if pair[0] != "host")]
    return Request(prepared.method, url.path, url.query, headers, prepared.body or b"")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def signed(
    *,
    method: str = "POST",
    url: str = "http://localhost:4566/",
    body: bytes = b"Action=ListStacks&Version=2010-05-15",
    key: AccessKey = KEY,
    service: str = "cloudformation",
    region: str = REGION,
    auth: Callable[..., Any] = SigV4Auth,
    **headers: str,
) -> Request:
    request = AWSRequest(method, url, headers=headers, data=body)
    auth(keys(key), service, region).add_auth(request)
    return sent(request)


def check(request: Request, key: AccessKey | None = KEY, **options: Any) -> None:
    verify(request, read(request), key, **{"region": REGION, **options})


def fault(request: Request, key: AccessKey | None = KEY, **options: Any) -> Fault:
    with pytest.raises(Refusal) as caught:
        check(request, key, **options)
    return caught.value.fault


def with_header(request: Request, name: str, value: str | None) -> Request:
    kept = [pair for pair in request.headers if pair[0] != name]
    return replace(request, headers=kept + ([(name, value)] if value is not None else []))


def s3(**more: Any) -> Request:
    return signed(
        **{"method": "PUT", "url": S3, "service": "s3", "auth": S3SigV4Auth, "body": b"data", **more}
    )


def presigned(**more: Any) -> Request:
    chosen = {"method": "GET", "url": S3, "service": "s3", "auth": S3SigV4QueryAuth, "body": b""}
    return signed(**{**chosen, **more})


class TestWhatSdksSend:
    @pytest.mark.parametrize(
        ("service", "url"),
        [
            ("cloudformation", "http://localhost:4566/"),
            ("lambda", "http://localhost:4566/2015-03-31/functions/arn%3Aaws%3Alambda%3Af/invocations"),
            ("apigateway", "http://localhost:4566/restapis//a/../x?b=2&a=1&a=0&empty="),
            ("sagemaker", "http://localhost:4566/endpoints/name/invocations"),
        ],
    )
    def test_is_accepted_with_a_header(self, service: str, url: str) -> None:
        check(signed(service=service, url=url))

    @pytest.mark.parametrize(
        "url", [S3, f"{S3}?list-type=2&prefix=a%2Fb&x", "http://b.localhost:4566/%C3%A9"]
    )
    def test_is_accepted_of_s3(self, url: str) -> None:
        check(s3(url=url))

    def test_is_accepted_with_a_session_token(self) -> None:
        check(signed(key=SESSION), SESSION)
        check(presigned(key=SESSION), SESSION)

    def test_is_accepted_as_a_presigned_address(self) -> None:
        check(presigned())
        check(signed(method="GET", url="http://localhost:4566/?Action=GetCallerIdentity", body=b"",
                     service="sts", auth=SigV4QueryAuth))  # fmt: skip

    def test_is_accepted_when_a_header_comes_twice_or_with_spaces(self) -> None:
        request = signed(**{"x-amz-meta-a": "one   two ", "x-amz-meta-b": "b"})
        check(request)

    @pytest.mark.parametrize(
        ("service", "call"),
        [
            ("s3", lambda c: c.put_object(Bucket="b", Key="a b/ü", Body=io.BytesIO(b"x" * 70_000))),
            ("s3", lambda c: c.get_object(Bucket="b", Key="k", Range="bytes=0-9")),
            ("dynamodb", lambda c: c.list_tables()),
            ("lambda", lambda c: c.get_function(FunctionName="arn:aws:lambda:us-east-1:1:function:f")),
            ("ec2", lambda c: c.describe_vpcs()),
            ("cloudwatch", lambda c: c.describe_alarms()),
            ("apigateway", lambda c: c.get_resources(restApiId="a", embed=["methods"])),
        ],
    )
    def test_boto3s_own_requests_hold(self, service: str, call: Callable[[Any], Any]) -> None:
        client = boto3.client(
            service,
            endpoint_url="http://localhost:4566",
            region_name=REGION,
            aws_access_key_id=KEY.access_key_id,
            aws_secret_access_key=KEY.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}),
        )
        seen: list[Request] = []

        class Enough(Exception):
            pass

        def keep(request: Any, **_: Any) -> None:
            url = urlsplit(request.url)
            headers = [(name.lower(), _text(value)) for name, value in request.headers.items()]
            body = request.body.read() if hasattr(request.body, "read") else request.body or b""
            body = body.encode() if isinstance(body, str) else body
            headers = [("host", url.netloc), *(pair for pair in headers if pair[0] != "host")]
            seen.append(Request(request.method, url.path, url.query, headers, body))
            raise Enough

        client.meta.events.register("before-send", keep)
        with pytest.raises(Enough):
            call(client)
        check(seen[0])


class TestWhatIsRefused:
    def test_a_request_without_a_signature(self) -> None:
        with pytest.raises(Refusal) as caught:
            read(Request("POST", "/", headers=[("host", "localhost")]))
        assert caught.value.fault is Fault.MISSING

    def test_a_key_that_nobody_knows(self) -> None:
        assert fault(signed(), None) is Fault.UNKNOWN_KEY

    def test_another_secret(self) -> None:
        assert fault(signed(key=AccessKey(KEY.access_key_id, "wrong"))) is Fault.MISMATCH

    @pytest.mark.parametrize(
        "change",
        [
            {"method": "GET"},
            {"path": "/other"},
            {"query": "Action=DeleteStack"},
            {"body": b"Action=DeleteStack&Version=2010-05-15"},
        ],
        ids=["method", "path", "query", "body"],
    )
    def test_a_signature_of_another_request(self, change: dict[str, Any]) -> None:
        assert fault(replace(signed(), **change)) is Fault.MISMATCH

    def test_a_header_that_was_changed_after_signing(self) -> None:
        request = signed(**{"x-amz-target": "Service.Read"})
        assert fault(with_header(request, "x-amz-target", "Service.Write")) is Fault.MISMATCH
        assert fault(with_header(signed(), "host", "elsewhere:80")) is Fault.MISMATCH

    def test_another_region(self) -> None:
        assert fault(signed(region="eu-central-1")) is Fault.SCOPE

    def test_a_scope_of_another_day(self) -> None:
        request = signed()
        authorization = request.header("authorization") or ""
        today = time.strftime("%Y%m%d", time.gmtime())
        other = authorization.replace(f"/{today}/", "/20200101/")
        assert fault(with_header(request, "authorization", other)) is Fault.SCOPE

    @pytest.mark.parametrize("seconds", [-1000, 1000])
    def test_a_clock_that_is_more_than_a_quarter_of_an_hour_off(self, seconds: int) -> None:
        assert fault(signed(), now=time.time() + seconds) is Fault.SKEWED

    def test_a_clock_that_is_a_little_off_is_no_matter(self) -> None:
        check(signed(), now=time.time() + 600)
        assert fault(signed(), now=time.time() + 600, skew=300) is Fault.SKEWED

    @pytest.mark.parametrize("date", ["", "yesterday", "2026-11-25T00:00:00Z"])
    def test_a_date_in_another_form(self, date: str) -> None:
        request = with_header(signed(), "x-amz-date", date or None)
        with pytest.raises(Refusal) as caught:
            check(request)
        assert caught.value.fault in (Fault.MALFORMED, Fault.SCOPE)

    def test_a_host_that_is_not_signed(self) -> None:
        request = signed()
        authorization = (request.header("authorization") or "").replace(
            "SignedHeaders=host;", "SignedHeaders="
        )
        assert fault(with_header(request, "authorization", authorization)) is Fault.MALFORMED

    def test_two_authorizations(self) -> None:
        request = signed()
        twice = replace(request, headers=[*request.headers, ("authorization", "AWS4-HMAC-SHA256 x")])
        assert fault(twice) is Fault.MALFORMED
        both = replace(presigned(), headers=[*presigned().headers, ("authorization", "AWS4-HMAC-SHA256 x")])
        assert fault(both) is Fault.MALFORMED

    @pytest.mark.parametrize(
        "authorization",
        ["AWS AKIA:c2ln", "Bearer token", "AWS4-ECDSA-P256-SHA256 Credential=a", "Basic YTpi", "AWS3 x"],
    )
    def test_other_ways_to_sign(self, authorization: str) -> None:
        request = with_header(signed(), "authorization", authorization)
        assert fault(request) is Fault.UNSUPPORTED

    def test_an_address_presigned_with_version_two(self) -> None:
        request = Request("GET", "/b/k", "AWSAccessKeyId=A&Signature=s&Expires=1", [("host", "localhost")])
        with pytest.raises(Refusal, match="Please use AWS4-HMAC-SHA256"):
            read(request)

    @pytest.mark.parametrize("drop", ["Credential", "SignedHeaders", "Signature"])
    def test_an_authorization_without_one_of_its_parts(self, drop: str) -> None:
        request = signed()
        authorization = (request.header("authorization") or "").replace(f"{drop}=", "Nothing=")
        assert fault(with_header(request, "authorization", authorization)) is Fault.MALFORMED

    def test_a_token_that_is_missing_wrong_or_too_much(self) -> None:
        assert fault(signed(key=AccessKey(SESSION.access_key_id, "secret")), SESSION) is Fault.TOKEN
        other = AccessKey(SESSION.access_key_id, "secret", "another")
        assert fault(signed(key=other), SESSION) is Fault.TOKEN
        extra = AccessKey(KEY.access_key_id, "secret", "token")
        assert fault(signed(key=extra)) is Fault.TOKEN

    def test_a_session_that_has_ended(self) -> None:
        ended = replace(SESSION, expires=time.time() - 1)
        assert fault(signed(key=ended), ended) is Fault.TOKEN_EXPIRED

    def test_a_presigned_address_that_has_ended(self) -> None:
        request = presigned()  # for an hour
        check(request, now=time.time() + 3500)
        assert fault(request, now=time.time() + 3700) is Fault.EXPIRED

    @pytest.mark.parametrize("expires", ["0", "604801", "-1", "1e3", "９"])
    def test_a_presigned_address_for_longer_than_a_week(self, expires: str) -> None:
        query = presigned().query.replace("X-Amz-Expires=3600", f"X-Amz-Expires={expires}")
        assert fault(replace(presigned(), query=query)) is Fault.MALFORMED


class TestBodiesOfS3:
    def test_a_body_that_is_not_the_signed_one(self) -> None:
        assert fault(replace(s3(), body=b"other")) is Fault.PAYLOAD

    def test_a_header_of_s3_that_is_not_signed(self) -> None:
        assert fault(with_header(s3(), "x-amz-acl", "public-read")) is Fault.UNSIGNED_HEADERS

    def test_an_unsigned_body_is_allowed_where_the_signature_says_so(self) -> None:
        request = AWSRequest("PUT", S3, data=b"data")
        request.context["payload_signing_enabled"] = False
        auth = S3SigV4Auth(keys(KEY), "s3", REGION)
        auth._should_sha256_sign_payload = lambda _: False
        auth.add_auth(request)
        arrived = sent(request)
        assert arrived.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
        check(replace(arrived, body=b"anything"))

    def test_no_word_about_the_body(self) -> None:
        request = signed(method="PUT", url="http://localhost:4566/bucket/key", service="s3")
        assert fault(request) is Fault.MALFORMED

    def test_a_hash_in_no_known_form(self) -> None:
        request = signed(
            url=S3, service="s3", **{"x-amz-content-sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}
        )
        assert fault(request) is Fault.MALFORMED

    def test_unsigned_is_no_word_that_another_service_takes(self) -> None:
        request = signed(**{"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        assert fault(replace(request, body=b"Action=DeleteStack")) is Fault.MISMATCH


CHUNKS = (b"a" * 65_536, b"b" * 1_000, b"")


class TestBodiesInChunks:
    def request(self, *, trailer: bytes = b"", parts: tuple[bytes, ...] = CHUNKS) -> Request:
        """As https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html lays it out."""
        name = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(sum(map(len, parts))),
            "x-amz-content-sha256": name,
        }
        request = signed(method="PUT", url=S3, service="s3", auth=_Declared, body=b"", **headers)
        given = read(request)
        key = b"AWS4" + KEY.secret_access_key.encode()
        for part in (given.scope.date, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        previous, body = given.signature, b""
        for part in parts:
            hashes = [hashlib.sha256(b"").hexdigest(), hashlib.sha256(part).hexdigest()]
            lines = ["AWS4-HMAC-SHA256-PAYLOAD", given.timestamp, given.scope.text, previous, *hashes]
            previous = hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()
            body += b"%x;chunk-signature=%s\r\n" % (len(part), previous.encode())
            body += part + (b"\r\n" if part or not trailer else b"")
        if trailer:
            hashed = hashlib.sha256(trailer + b"\n").hexdigest()
            lines = ["AWS4-HMAC-SHA256-TRAILER", given.timestamp, given.scope.text, previous, hashed]
            last = hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()
            body += trailer + b"\r\nx-amz-trailer-signature:" + last.encode() + b"\r\n\r\n"
        return replace(request, body=body)

    def test_are_accepted(self) -> None:
        check(self.request())
        check(self.request(trailer=b"x-amz-checksum-crc32:AAAAAA=="))

    def test_a_changed_chunk(self) -> None:
        request = self.request()
        assert fault(replace(request, body=request.body.replace(b"aaaa", b"aaba", 1))) is Fault.MISMATCH

    def test_a_changed_trailer(self) -> None:
        request = self.request(trailer=b"x-amz-checksum-crc32:AAAAAA==")
        changed = request.body.replace(b"crc32:AAAA", b"crc32:BAAA")
        assert fault(replace(request, body=changed)) is Fault.MISMATCH

    @pytest.mark.parametrize("end", [-1, -60, -1100, 40, 0])
    def test_a_body_that_breaks_off(self, end: int) -> None:
        request = self.request()
        last = request.body.rstrip(b"\r\n")
        assert fault(replace(request, body=last[:end])) is Fault.INCOMPLETE_BODY

    def test_chunks_that_were_left_out(self) -> None:
        request = self.request()
        last = request.body.index(b"0;chunk-signature")
        assert fault(replace(request, body=request.body[last:])) is Fault.MISMATCH

    def test_unsigned_chunks_are_the_services_business(self) -> None:
        headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
        request = signed(method="PUT", url=S3, service="s3", auth=_Declared, body=b"", **headers)
        check(replace(request, body=b"4\r\ndata\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"))


class _Declared(S3SigV4Auth):
    """Signs what the header says of the body, as SDKs do when they stream."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        declared = request.headers["x-amz-content-sha256"]
        super()._modify_request_before_signing(request)
        request.headers.replace_header("X-Amz-Content-SHA256", declared)
