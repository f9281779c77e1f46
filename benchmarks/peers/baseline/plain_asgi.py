"""One ASGI callable on uvicorn (uvloop, httptools): parse, predict, answer; no checks, limits or metrics."""

import sys

import orjson
import predictor
import uvicorn

predict = predictor.load(sys.argv[2])


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    answer = orjson.dumps({"predictions": predict(predictor.rows_of(orjson.loads(body)))})
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
