"""Starlette as a person would write it for speed: async route, orjson, uvicorn with uvloop and httptools."""

import sys

import orjson
import predictor
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

predict = predictor.load(sys.argv[2])


async def invocations(request: Request) -> Response:
    rows = predictor.rows_of(orjson.loads(await request.body()))
    return Response(orjson.dumps({"predictions": predict(rows)}), media_type="application/json")


app = Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
