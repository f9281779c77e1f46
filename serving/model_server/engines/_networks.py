"""Networks of the transformers engine: token ids to logits or hidden states, in ONNX Runtime or PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model_server.problems import ModelRefusedError

Array = np.ndarray[Any, Any]


class Network(Protocol):
    """Token ids to numbers, on whichever runtime."""

    framework: str
    framework_version: str

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        """An encoder's outputs by name: ids, mask, types [rows, tokens]."""
        ...

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        """A decoder's logits [rows, vocabulary] for the token after `ids`, and what to pass on as `past`.

        `ids` [rows, new] are the tokens since the last step; `mask` [rows, all] covers the earlier ones too.
        """
        ...

    @property
    def pads(self) -> bool:
        """Whether a decoder is told positions, so that prompts of different lengths may share a batch."""
        ...


class OnnxNetwork:
    """An exported graph; a decoder's has Optimum's names for inputs and outputs, with or without a cache."""

    framework = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelRefusedError(
                f"{path.name} is not a readable ONNX model: {first_line(error)}"
            ) from error
        self.framework_version = str(onnxruntime.__version__)
        self.inputs = {node.name: node for node in session.get_inputs()}
        self.outputs = [node.name for node in session.get_outputs()]
        self.cache = [name for name in self.inputs if name.startswith("past_key_values.")]
        known = {
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "position_ids",
            "use_cache_branch",
            *self.cache,
        }
        strange = sorted(set(self.inputs) - known)
        if strange:
            raise ModelRefusedError(f"{path.name} wants {', '.join(strange)}, which text alone does not give")
        self.session = session

    @property
    def pads(self) -> bool:
        return "position_ids" in self.inputs

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if self.pads:
            feeds["position_ids"] = positions(mask)
        return self._call(feeds)

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        if not self.cache:  # every step goes over the whole text again
            ids = ids if past is None else np.concatenate((past, ids), axis=1)
            feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
            return self._call(feeds)["logits"][:, -1], ids
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions(mask)[:, -ids.shape[1] :],
            "use_cache_branch": np.array([past is not None]),
            **(past or {name: self._nothing(name, len(ids)) for name in self.cache}),
        }
        outputs = self._call(feeds)
        past = {name: outputs[name.replace("past_key_values", "present")] for name in self.cache}
        return outputs["logits"][:, -1], past

    def _call(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {
            name: feeds[name].astype(np.int32) if node.type == "tensor(int32)" else feeds[name]
            for name, node in self.inputs.items()
        }
        return dict(zip(self.outputs, self.session.run(self.outputs, given), strict=True))

    def _nothing(self, name: str, rows: int) -> Array:
        """The cache before the first token: no positions yet."""
        _, heads, _, width = self.inputs[name].shape
        half = self.inputs[name].type == "tensor(float16)"
        return np.zeros((rows, heads, 0, width), np.float16 if half else np.float32)


class TorchNetwork:
    """The transformers library's own network, in 32-bit floats on the CPU."""

    framework = "transformers"
    pads = True

    def __init__(self, directory: Path, task: str, threads: int, *, trust_code: bool) -> None:
        pickled = not any(path.suffix == ".safetensors" for path in weights(directory))
        if pickled and not trust_code:
            raise ModelRefusedError(
                "pytorch_model.bin is a pickle, which can run any code when it is read; save the model as "
                "safetensors, or set MODEL_SERVER_TRUST_CODE=true if you made this file yourself"
            )
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ModelRefusedError(
                f"these weights need PyTorch and transformers, and {error.name} is not installed; install "
                'the extra "torch", or add ONNX weights: optimum-cli export onnx --model DIR DIR'
            ) from error
        loaders = {
            "text-classification": transformers.AutoModelForSequenceClassification,
            "feature-extraction": transformers.AutoModel,
            "text-generation": transformers.AutoModelForCausalLM,
        }
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        try:
            self.model = loaders[task].from_pretrained(
                directory,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=not pickled,
                dtype=torch.float32,
            )
        except Exception as error:  # whatever a wrong file makes the library say
            raise ModelRefusedError(f"transformers cannot load the model: {first_line(error)}") from error
        self.model.eval()
        self.framework_version = str(transformers.__version__)
        self.accepted = set(signature(self.model.forward).parameters)
        self.torch = torch

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        output = self._call({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
        return {
            name: output[name].numpy()
            for name in ("logits", "last_hidden_state")
            if output.get(name) is not None
        }

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        last = positions(mask)[:, -ids.shape[1] :]
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": last}
        output = self._call(feeds, past_key_values=past, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].numpy(), output.past_key_values

    def _call(self, feeds: Mapping[str, Array], **options: Any) -> Any:
        given = {name: self.torch.from_numpy(array) for name, array in feeds.items() if name in self.accepted}
        with self.torch.inference_mode():
            return self.model(
                **given, **{name: value for name, value in options.items() if name in self.accepted}
            )


def weights(directory: Path) -> Iterator[Path]:
    """The weights that the folder holds, the preferred ones first."""
    names = (
        "model.onnx",
        "onnx/model.onnx",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )
    for name in names:
        if (directory / name).is_file():
            yield directory / name.removesuffix(".index.json")


def positions(mask: Array) -> Array:
    return np.asarray(np.maximum(mask.cumsum(axis=1) - 1, 0))


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
