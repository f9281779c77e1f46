"""plain_asgi.py, but the rows that arrived in one turn of the event loop are predicted together."""

import asyncio
import sys

import orjson
import predictor
import uvicorn

predict = predictor.load(sys.argv[2])
waiting: list[tuple[list, asyncio.Future]] = []


def flush() -> None:
    batch, waiting[:] = list(waiting), []
    predictions = predict([row for rows, _ in batch for row in rows])
    at = 0
    for rows, future in batch:
        if not future.done():
            future.set_result(predictions[at : at + len(rows)])
        at += len(rows)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    if not waiting:
        loop.call_soon(flush)
    waiting.append((predictor.rows_of(orjson.loads(body)), future))
    answer = orjson.dumps({"predictions": await future})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    lifespan="off",
    access_log=False,
    log_level="warning",
)
