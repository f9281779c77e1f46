"""mosec: a Rust front and Python worker processes; arguments: batch size (1: no wait), workers."""

import os
import sys

import orjson
import predictor
from mosec import Server, Worker

# Its workers import this file again, with mosec's own arguments: the settings travel in the environment.
if __name__ == "__main__":
    port, os.environ["MODEL_DIRECTORY"], os.environ["BATCH"], workers = sys.argv[1:]
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--log-level", "warning"]
batch = int(os.environ["BATCH"])


class Model(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.predict = predictor.load(os.environ["MODEL_DIRECTORY"])

    def deserialize(self, data):
        return orjson.loads(data)

    def serialize(self, data):
        return orjson.dumps(data)

    def forward(self, data):
        if batch == 1:
            return {"predictions": self.predict(predictor.rows_of(data))}
        rows = [row for item in data for row in predictor.rows_of(item)]
        return [{"predictions": [prediction]} for prediction in self.predict(rows)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=int(workers), max_batch_size=batch)
    server.run()
