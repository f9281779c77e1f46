"""BentoML: one service with one API method, served by its own command."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

if __name__ == "__main__":
    port, directory = sys.argv[1], sys.argv[2]
    home = Path(sys.prefix) / "home"
    home.mkdir(exist_ok=True)
    os.environ |= {"MODEL_DIRECTORY": directory, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    os.chdir(Path(__file__).parent)
    options = ["serve", "serve:Served", "--host", "127.0.0.1", "--port", port]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *options])

import predictor


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Served:
    def __init__(self) -> None:
        self.predictor = predictor.load(os.environ["MODEL_DIRECTORY"])

    @bentoml.api
    async def predict(self, instances: list[Any]) -> dict[str, Any]:
        return {"predictions": self.predictor(instances)}
