"""Checks that callers without the right key or signature are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelstacks.verification.checks import Check
from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict

PATH = "/v2"


def run(subject: Subject) -> Iterator[Verdict]:
    """Send no key or signature, and a wrong one."""
    api = subject.api
    nothing = api.send("GET", PATH, anonymous=True)
    what = "key" if api.api_key is not None else "signature"
    yield subject.refused(f"a caller without a {what} is refused", f"GET {PATH}", nothing, (401, 403))
    if api.signer is not None:
        wrong = replace(api, signer=replace(api.signer, secret_access_key="not-the-secret"))  # noqa: S106
    else:
        wrong = replace(api, api_key="not-the-key-of-anybody-here")
    yield subject.refused(
        f"a caller with a wrong {what} is refused", f"GET {PATH}", wrong.send("GET", PATH), (401, 403)
    )
    if api.url.startswith("https://"):
        yield Verdict("the connection is encrypted", "passed", "TLS 1.2 or newer, certificate verified")


CHECK = Check("access", 50, "API keys and SigV4 are enforced on every route by API Gateway", run)
