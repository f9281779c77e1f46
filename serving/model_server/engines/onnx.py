"""ONNX graphs through onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_server.engines import Engine, Tensors, no_parameters
from model_server.problems import ModelRefusedError
from model_server.settings import Settings, available_cores
from model_server.signature import Signature, Tensor, read_signature

ENGINE = "onnx"

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
# Below this size a call is too short for a second thread to help: workers use the cores instead.
PARALLEL_BYTES = 32 * 1024 * 1024


def accepts(directory: Path) -> bool:
    # With a config.json beside it, the graph is a transformers model and needs its tokenizer.
    return bool(list(directory.glob("*.onnx"))) and not (directory / "config.json").exists()


def load(directory: Path, settings: Settings) -> Engine:
    import onnxruntime

    graphs = sorted(directory.glob("*.onnx"))
    path = directory / "model.onnx" if directory / "model.onnx" in graphs else None
    if path is None:
        if len(graphs) != 1:
            held = ", ".join(graph.name for graph in graphs) or "no .onnx file"
            raise ModelRefusedError(f"{directory} must hold one .onnx file or a model.onnx; it holds: {held}")
        path = graphs[0]
    weights = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    parallel = weights > PARALLEL_BYTES
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads or (available_cores() if parallel else 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ModelRefusedError(f"{path.name} is not a readable ONNX model: {_first_line(error)}") from error
    inputs = tuple(_tensor(node, path) for node in session.get_inputs())
    outputs = tuple(_tensor(node, path) for node in session.get_outputs())
    stuck = any(not tensor.shape or tensor.shape[0] != -1 for tensor in inputs)
    # A graph exported for a batch of one is called once a row.
    one_by_one = stuck and all(tensor.shape[:1] == (1,) for tensor in inputs + outputs)
    if one_by_one:
        inputs, outputs = _free_batch(inputs), _free_batch(outputs)
    probabilities = next((tensor.name for tensor in outputs if "prob" in tensor.name.lower()), "")
    return Onnx(
        framework_version=onnxruntime.__version__,
        task="classification" if probabilities else "inference",
        signature=read_signature(directory) or Signature(inputs, outputs),
        batches=not stuck and all(tensor.shape[:1] == (-1,) for tensor in outputs),
        parallel=parallel,
        run=session.run,
        names=[tensor.name for tensor in outputs],
        probabilities=probabilities,
        one_by_one=one_by_one,
    )


@dataclass
class Onnx(Engine):
    framework_version: str
    task: str
    signature: Signature
    batches: bool
    parallel: bool
    run: Any
    names: list[str]
    probabilities: str
    one_by_one: bool
    name: str = ENGINE
    framework: str = "onnxruntime"

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        no_parameters(parameters, ENGINE)
        if not self.one_by_one:
            return dict(zip(self.names, self.run(self.names, inputs), strict=True))
        rows = len(next(iter(inputs.values())))
        calls = [
            self.run(self.names, {key: value[i : i + 1] for key, value in inputs.items()})
            for i in range(rows)
        ]
        return {
            key: np.concatenate(parts)
            for key, parts in zip(self.names, zip(*calls, strict=True), strict=True)
        }

    def present(self, outputs: Tensors) -> np.ndarray[Any, Any] | list[Any]:
        # Converted classifiers give the label as well; the contract's entry is the probabilities.
        return outputs[self.probabilities] if self.probabilities else super().present(outputs)


def _tensor(node: Any, path: Path) -> Tensor:
    if node.type not in DATATYPES:
        hint = "; convert the classifier with zipmap=False" if node.type.startswith("seq(map") else ""
        raise ModelRefusedError(
            f"{path.name}: {node.name} is a {node.type}, which has no Open Inference datatype{hint}"
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape)
    return Tensor(node.name, DATATYPES[node.type], shape)


def _free_batch(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(tensor.name, tensor.datatype, (-1, *tensor.shape[1:])) for tensor in tensors)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
