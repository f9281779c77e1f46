"""Checks that held-out rows in every content type are answered as the trainer predicted."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator

from modelstacks.adapters.deployed_api import Answer
from modelstacks.verification.checks import Check
from modelstacks.verification.rows import Values, difference, values
from modelstacks.verification.subject import JSON, Subject
from modelstacks.verification.verdict import Verdict, exchange

REQUEST = "POST /invocations"


def run(subject: Subject) -> Iterator[Verdict]:
    """Send JSON, CSV if the rows are a table, and gzip-compressed JSON."""
    plain = subject.predict()
    yield _compared(subject, "predictions in JSON", plain)
    yield _csv(subject, plain)
    body = gzip.compress(json.dumps(subject.rows.body).encode(), mtime=0)
    packed = subject.api.send(
        "POST", "/invocations", body=body, headers={"content-type": JSON, "content-encoding": "gzip"}
    )
    yield _compared(subject, "predictions of a gzip-compressed body", packed)


def _compared(subject: Subject, question: str, answer: Answer) -> Verdict:
    shown = exchange(REQUEST, answer)
    try:
        predictions = json.loads(answer.body)["predictions"]
    except (ValueError, KeyError, TypeError):
        return Verdict(question, "failed", f"got {answer.status}: {answer.text[:200]}", shown)
    return subject.compare(question, predictions, shown)


def _csv(subject: Subject, plain: Answer) -> Verdict:
    question = "predictions in CSV"
    body = subject.rows.csv()
    if body is None:
        return Verdict(question, "skipped", "the rows are not a table")
    headers = {"content-type": "text/csv", "accept": "text/csv"}
    answer = subject.api.send("POST", "/invocations", body=body, headers=headers)
    shown = exchange(REQUEST, answer, body)
    if not answer.ok or not plain.ok:
        return Verdict(question, "failed", f"got {answer.status}: {answer.text[:200]}", shown)
    far = difference(_cells(answer.text), values(json.loads(plain.body)["predictions"]))
    detail = f"{subject.rows.count} rows, largest difference from JSON {far:.1e} of the tolerance"
    return Verdict(question, "passed" if far <= 1 else "failed", detail, shown)


def _cells(text: str) -> Values:
    numbers, texts = [], []
    for cell in (cell for line in csv.reader(io.StringIO(text)) for cell in line):
        try:
            numbers.append(float(cell))
        except ValueError:
            texts.append(cell)
    return Values(tuple(numbers), tuple(texts))


CHECK = Check(
    "predictions",
    20,
    "bodies pass API Gateway unchanged, and the deployed model answers as it did in training",
    run,
)
