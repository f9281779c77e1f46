"""What goes into a model and what comes out of it, in the Open Inference Protocol's words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelstacks.core.base import Frozen

__all__ = ["Datatype", "Signature", "Tensor"]

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]


class Tensor(Frozen):
    """One input or output tensor.

    A dimension of -1 is free: the batch, or a length known only at run time.
    """

    name: str
    datatype: Datatype
    shape: Annotated[tuple[int, ...], Field(strict=False)]
    columns: Annotated[tuple[str, ...], Field(strict=False)] = ()
    # Values that the model knows.
    examples: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Signature(Frozen):
    """A model's inputs and outputs."""

    inputs: Annotated[tuple[Tensor, ...], Field(strict=False, min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(strict=False, min_length=1)]
    classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
