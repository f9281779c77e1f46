"""FastAPI, async with the body as a plain dictionary, or (argument "typed") as its tutorial writes it."""

import sys
from typing import Any

import predictor
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

predict = predictor.load(sys.argv[2])
app = FastAPI()


class Body(BaseModel):
    instances: list[Any] | None = None
    inputs: list[Any] | None = None


if sys.argv[3:] == ["typed"]:

    @app.post("/invocations")
    def invocations(body: Body) -> dict[str, list[Any]]:
        return {"predictions": predict(body.inputs if body.instances is None else body.instances)}

else:

    @app.post("/invocations")
    async def invocations(body: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": predict(predictor.rows_of(body))}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
