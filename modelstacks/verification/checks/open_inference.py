"""Checks the Open Inference Protocol: metadata, JSON tensors, binary tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from modelstacks.adapters.deployed_api import Answer
from modelstacks.core.signature import Signature, Tensor
from modelstacks.verification.checks import Check
from modelstacks.verification.rows import difference, values
from modelstacks.verification.subject import JSON, Subject
from modelstacks.verification.verdict import Verdict, exchange

LENGTH = "inference-header-content-length"
_CODES = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "UINT8": "B", "INT8": "b"}


def run(subject: Subject) -> Iterator[Verdict]:
    """Check that metadata names the locked signature, and that JSON and binary answers are equal."""
    signature = subject.plan.signature
    if signature is None:
        yield Verdict("model metadata", "skipped", "the lock has no signature of a provider's model")
        return
    yield _metadata(subject, signature)
    tensor = signature.inputs[0]
    rows = _rows(subject)
    if len(signature.inputs) > 1 or rows is None:
        yield Verdict("infer with tensors", "skipped", "the rows are not the one tensor of the signature")
        return
    json_verdict, outputs = _infer_json(subject, tensor, rows)
    yield json_verdict
    if outputs is not None:
        yield _infer_binary(subject, tensor, rows, outputs)


def _metadata(subject: Subject, signature: Signature) -> Verdict:
    path = f"/v2/models/{subject.model}"
    answer = subject.api.send("GET", path)
    shown = exchange(f"GET {path}", answer)
    try:
        named = [(one["name"], one["datatype"]) for one in json.loads(answer.body)["inputs"]]
    except (ValueError, KeyError, TypeError):
        return Verdict("model metadata", "failed", f"got {answer.status}: {answer.text[:200]}", shown)
    wanted = [(one.name, one.datatype) for one in signature.inputs]
    if named != wanted:
        return Verdict("model metadata", "failed", f"inputs are {named}; expected {wanted}", shown)
    return Verdict("model metadata", "passed", "the inputs of the locked signature", shown)


def _rows(subject: Subject) -> list[Any] | None:
    rows = subject.rows.body.get("instances", subject.rows.body.get("inputs"))
    return rows if isinstance(rows, list) else None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _shape(rows: list[Any]) -> list[int]:
    shape, level = [len(rows)], rows[0]
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0]
    return shape


def _infer_json(subject: Subject, tensor: Tensor, rows: list[Any]) -> tuple[Verdict, list[Any] | None]:
    """Return the verdict, and the outputs if there is an answer."""
    flat = [_typed(tensor, item) for item in _flat(rows)]
    given = {"name": tensor.name, "datatype": tensor.datatype, "shape": _shape(rows), "data": flat}
    body = json.dumps({"inputs": [given]}).encode()
    path = f"/v2/models/{subject.model}/infer"
    answer = subject.api.send("POST", path, body=body, headers={"content-type": JSON})
    shown = exchange(f"POST {path}", answer, body)
    outputs = _outputs(answer)
    if outputs is None:
        detail = f"got {answer.status}: {answer.text[:200]}"
        return Verdict("infer with JSON tensors", "failed", detail, shown), None
    names = ", ".join(str(one.get("name")) for one in outputs)
    return Verdict("infer with JSON tensors", "passed", f"outputs {names}", shown), outputs


def _typed(tensor: Tensor, item: Any) -> Any:
    return int(item) if tensor.datatype.startswith(("INT", "UINT")) and isinstance(item, float) else item


def _outputs(answer: Answer) -> list[Any] | None:
    try:
        outputs = json.loads(answer.body)["outputs"]
    except (ValueError, KeyError, TypeError):
        return None
    return outputs if answer.ok and isinstance(outputs, list) else None


def _infer_binary(subject: Subject, tensor: Tensor, rows: list[Any], outputs: list[Any]) -> Verdict:
    question = "infer with a binary tensor"
    code = _CODES.get(tensor.datatype)
    if code is None:
        return Verdict(question, "skipped", f"{tensor.datatype} is not a tensor of plain numbers")
    flat = [_typed(tensor, item) for item in _flat(rows)]
    data = struct.pack(f"<{len(flat)}{code}", *flat)
    given = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": _shape(rows),
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [given]}).encode()
    path = f"/v2/models/{subject.model}/infer"
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    answer = subject.api.send("POST", path, body=head + data, headers=headers)
    shown = exchange(f"POST {path}", answer, head + data)
    found = _outputs(answer)
    if found is None:
        return Verdict(question, "failed", f"got {answer.status}: {answer.text[:200]}", shown)
    far = difference(values([o.get("data") for o in found]), values([o.get("data") for o in outputs]))
    detail = f"{len(rows)} rows, largest difference from JSON tensors {far:.1e} of the tolerance"
    return Verdict(question, "passed" if far <= 1 else "failed", detail, shown)


CHECK = Check(
    "open inference protocol",
    30,
    "path parameters, and the header that frames binary tensors, pass both architectures",
    run,
)
