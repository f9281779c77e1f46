"""KServe's Python model server, V1 protocol."""

import sys

import predictor
from kserve import Model, ModelServer

port, directory = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:]  # kserve parses them too


class Served(Model):
    def __init__(self) -> None:
        super().__init__("model")
        self.predictor = predictor.load(directory)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": self.predictor(predictor.rows_of(payload))}


if __name__ == "__main__":
    ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format=None).start([Served()])
