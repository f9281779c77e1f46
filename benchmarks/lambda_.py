"""The Lambda handler: its cold import beside a bare `import boto3`, and what it adds to a call.

    python -m benchmarks.lambda_ [--rounds 15] [--calls 2000]

The import is what a cold start runs before the first event: the module with its client made, against
`import boto3` alone, in fresh processes, in turns. What a call costs is taken with the client replaced by one
that answers at once: base64 both ways, attributes, headers, the answer.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "lambda" / "invoke"
AIM = 1.2
ENVIRONMENT = {
    "ENDPOINT_NAME": "churn-managed",
    "MAX_BODY_BYTES": "4194304",
    "READ_TIMEOUT_SECONDS": "27",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
COMMANDS = {"python -c pass": "pass", "import boto3": "import boto3", "import handler": "import handler"}


class InstantRuntime:
    """A client that answers with what it was sent."""

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        return {"ContentType": request["ContentType"], "Body": io.BytesIO(request["Body"])}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lambda_", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(arguments.rounds + 1):
        for name, code in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", code], cwd=FOLDER, env={**os.environ, **ENVIRONMENT}, check=True
            )
            if number:  # the first round warms the file cache
                times[name].append(1000 * (time.perf_counter() - started))
    print(f"cold import, {arguments.rounds} rounds, median ms")
    for name, taken in times.items():
        print(f"{name:20} {median(taken):7.1f}  (min {min(taken):.1f}, max {max(taken):.1f})")
    start, boto3, handler = (median(taken) for taken in times.values())
    ratio = (handler - start) / (boto3 - start)  # the interpreter's own start is in both
    print(f"{'ratio':20} {ratio:7.2f}  (aim: at most {AIM})")

    os.environ.update(ENVIRONMENT)
    sys.path.insert(0, str(FOLDER))
    import handler as module  # type: ignore[import-not-found]

    invoke = module.Invoker(module.Environment.read(os.environ), InstantRuntime())
    print(f"what a call adds, {arguments.calls} calls, median microseconds")
    for name, body in {"one row, 200 bytes": b"x" * 200, "1,000 rows, 1 MB": b"x" * 1_000_000}.items():
        event = {
            "httpMethod": "POST",
            "path": "/v2/models/churn/infer",
            "headers": {"Content-Type": "application/json", "Accept": "*/*", "X-Request-Id": "r"},
            "requestContext": {"requestId": "r"},
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        taken = []
        for _ in range(arguments.calls if len(body) < 1000 else arguments.calls // 20):
            started = time.perf_counter()
            answer = invoke(event)
            taken.append(1e6 * (time.perf_counter() - started))
            assert answer["statusCode"] == 200
        print(f"{name:20} {median(taken):7.0f}")
    return 0 if ratio <= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
