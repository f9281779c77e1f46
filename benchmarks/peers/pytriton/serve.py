"""PyTriton: NVIDIA Triton with the model as a Python function, Triton's dynamic batching."""

import sys

import numpy as np
import predictor
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

predict = predictor.load(sys.argv[2])


def infer(requests):
    rows = np.concatenate([request["X"] for request in requests])
    predictions = np.array(predict(rows), dtype=np.float32)
    answers, at = [], 0
    for request in requests:
        count = len(request["X"])
        answers.append({"probabilities": predictions[at : at + count]})
        at += count
    return answers


config = TritonConfig(
    http_address="127.0.0.1", http_port=int(sys.argv[1]), allow_grpc=False, allow_metrics=False, log_verbose=0
)
with Triton(config=config) as triton:
    triton.bind(
        model_name="model",
        infer_func=infer,
        inputs=[Tensor(name="X", dtype=np.float32, shape=(-1,))],
        outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher()),
        strict=False,
    )
    triton.serve()
