"""MLServer with a custom runtime, Open Inference Protocol, inference in its own process (no worker pool)."""

import asyncio
import socket
import sys

import numpy as np
import predictor
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Served(MLModel):
    async def load(self) -> bool:
        self.predictor = predictor.load(sys.argv[2])
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", np.array(self.predictor(rows)))
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main() -> None:
    server = MLServer(
        Settings(
            host="127.0.0.1",
            http_port=int(sys.argv[1]),
            grpc_port=free_port(),
            metrics_port=free_port(),
            parallel_workers=0,
            debug=False,
            load_models_at_startup=False,
        )
    )
    await server.start([ModelSettings(name="model", implementation=Served)])


asyncio.run(main())
