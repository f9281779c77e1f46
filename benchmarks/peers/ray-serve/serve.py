"""Ray Serve: one deployment with one replica behind its HTTP proxy."""

import sys

import predictor
import ray
from ray import serve
from starlette.requests import Request

port, directory = int(sys.argv[1]), sys.argv[2]


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.5})
class Served:
    def __init__(self) -> None:
        self.predictor = predictor.load(directory)

    async def __call__(self, request: Request):
        return {"predictions": self.predictor(predictor.rows_of(await request.json()))}


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir="/tmp/modelstacks-ray")
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(Served.bind(), blocking=True)
