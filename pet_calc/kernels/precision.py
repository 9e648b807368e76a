"""Precision of matrix products in float32 on a GPU, for as long as a block of code runs.

Torch keeps this as a state of the process. Here it is set for one evaluation and put back, so that
programs around this package, and other packages in the same process, keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

import torch

#: The option `precision` of calculators.
Precision = Literal["highest", "high", "fast"]

# the precision of the kernels that are written here
_current: ContextVar[Precision] = ContextVar("pet_calc_precision", default="highest")

# by torch's name for it: the state is asked for by attribute, as its name has changed
_MODES: Final = {"highest": "ieee", "high": "tf32", "fast": "tf32"}
_NAMES: Final = {"high": "TensorFloat-32", "fast": "bfloat16"}


def require_precision(precision: str, device: torch.device, kernels: str) -> None:
    """Raise `ValueError` for a precision that does not exist, or not on a device.

    Parameters
    ----------
    precision : {"highest", "high", "fast"}
    device : torch.device
    kernels : {"reference", "triton"}
        From `pet_calc.kernels.operation.require_kernels`.
    """
    if precision not in _MODES:
        raise ValueError(f"`precision` must be 'highest', 'high' or 'fast', got {precision!r}")
    if precision != "highest" and device.type != "cuda":
        raise ValueError(
            f"`precision` {precision!r} is {_NAMES[precision]}, which CUDA devices have, but the "
            f"model is on {device}; leave it out"
        )
    if precision == "fast" and kernels != "triton":
        raise ValueError(
            "`precision` 'fast' is bfloat16 in the Triton kernels, which are not in use; give "
            "`kernels` 'triton' too, or take 'high'"
        )


def current_precision() -> Precision:
    """The precision that is in force where this is called."""
    return _current.get()


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Compute matrix products of float32 on CUDA devices in this precision within the block.

    Parameters
    ----------
    precision : {"highest", "high", "fast"}
        "highest" leaves everything as it is, which is float32 unless the program around has asked
        torch for less; "high" is TensorFloat-32; "fast" is that too for torch, and bfloat16 in
        kernels that are written here.
    """
    if precision == "highest":
        yield
        return
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    token = _current.set(precision)
    setattr(matmul, name, _MODES[precision] if name == "fp32_precision" else True)
    try:
        yield
    finally:
        setattr(matmul, name, before)
        _current.reset(token)
