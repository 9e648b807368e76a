"""Choice of the implementation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor

from pet_calc.kernels import paths
from pet_calc.kernels.edge_embedding import reference
from pet_calc.kernels.edge_embedding.reference import Encoding
from pet_calc.kernels.paths import Precision
from pet_calc.kernels.precision import current_precision

_log = logging.getLogger("pet_calc")

Backend = Literal["auto", "torch", "triton"]

#: Rows of the matrix that one program holds.
MOST_ROWS: Final = 128
#: Largest deviation from the reference that a precision may have, relative to the largest value.
TOLERANCE: Final = {"highest": 1e-4, "high": 2e-2, "fast": 2e-2}

# what the check at first use has found, by device, type and shape
_checked: dict[tuple[object, ...], str | None] = {}


def triton_refusal(vectors: Tensor, rows: int) -> str | None:
    """Why the Triton kernels cannot run on such tensors; None if they can."""
    if (refusal := paths.triton_refusal(vectors)) is not None:
        return refusal
    if rows > MOST_ROWS:
        return f"they take a geometry of {MOST_ROWS} numbers at most, not {rows}"
    return None


def fused_embedding(vectors: Tensor, rows: int) -> bool:
    """Whether `edge_embedding` is one kernel for vectors and a geometry of so many numbers.

    So it is with ``PET_CALC_TRITON=1`` in the environment, on CUDA devices where the kernels can
    run: they have been run in Triton's interpreter and compiled, but on no GPU yet. The reason why
    not goes to the logger ``pet_calc``, level DEBUG.
    """
    asked = vectors.device.type == "cuda" and os.environ.get("PET_CALC_TRITON") == "1"
    if not asked or torch.compiler.is_compiling():
        return False
    refusal = triton_refusal(vectors, rows)
    if refusal is not None:
        _log.debug("edge embedding without Triton kernels: %s", refusal)
        return False
    return paths.take(paths.EDGE_EMBEDDING, current_precision())


def edge_embedding(
    vectors: Tensor, mask: Tensor, species: Tensor, cutoff: Tensor, centers: Tensor,
    table: Tensor, matrix: Tensor, encoding: Encoding,
    *, backend: Backend = "auto", precision: Precision | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Token inputs and cutoff weights of edges.

    Parameters
    ----------
    vectors, mask, species, cutoff, centers, table, matrix, encoding
        As of the reference.
    backend : {"auto", "torch", "triton"}
        "auto" is torch, or the Triton kernels where `fused_embedding` says so and they agree with
        the reference at first use. A backend named here is used or raises.
    precision : {"highest", "high", "fast"}, optional
        Of the products in the Triton kernels: that of float32 (three products of TensorFloat-32),
        or TensorFloat-32, also for "fast". By default what is in force, see
        `pet_calc.kernels.precision`.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'torch' or 'triton', got {backend!r}")
    arguments = (vectors, mask, species, cutoff, centers, table, matrix)
    if backend == "torch" or (backend == "auto" and not fused_embedding(vectors, len(matrix))):
        return reference.edge_embedding(*arguments, encoding)
    refusal = triton_refusal(vectors, len(matrix))
    if refusal is not None:
        raise ValueError(f"the Triton kernels cannot be used: {refusal}")
    from pet_calc.kernels.edge_embedding import triton

    precision = precision or current_precision()
    fused = partial(triton.edge_embedding, precision=precision)
    if backend == "triton":
        return fused(*arguments, encoding)
    key = (vectors.device, vectors.dtype, *matrix.shape, encoding, precision)
    if len(vectors) > 0 and key not in _checked:
        _checked[key] = deviation(fused, arguments, encoding, TOLERANCE[precision])
        if _checked[key] is not None:
            _log.warning("edge embedding falls back to torch: %s", _checked[key])
    if _checked.get(key) is None:
        return fused(*arguments, encoding)
    return reference.edge_embedding(*arguments, encoding)


def deviation(
    fused: Callable[..., tuple[Tensor, Tensor]], arguments: tuple[Tensor, ...],
    encoding: Encoding, tolerance: float,
) -> str | None:  # fmt: skip
    """How a fused form differs from the reference on some edges; None if it agrees.

    Values and gradients are compared, relative to the largest of each.
    """
    found = []
    forms: tuple[tuple[Callable[..., tuple[Tensor, Tensor]], torch.dtype], ...] = (
        (fused, arguments[0].dtype), (reference.edge_embedding, torch.float64),
    )  # fmt: skip
    for kernel, dtype in forms:
        inputs = [
            (t[:256] if k < 4 else t).detach().to(dtype if t.is_floating_point() else t.dtype)
            for k, t in enumerate(arguments)
        ]
        inputs[0], inputs[3] = (inputs[k].clone().requires_grad_() for k in (0, 3))
        with torch.enable_grad():
            try:
                hidden, weight = kernel(*inputs, encoding)
                (hidden.square().sum() + weight.square().sum()).backward()
            except Exception as error:  # a compiler that fails has many names for it
                return f"{type(error).__name__}: {error}"
        found.append([hidden.detach(), weight.detach(), inputs[0].grad, inputs[3].grad])
    names = ("value", "weight", "gradient", "gradient on the cutoff")
    for name, value, exact in zip(names, *found, strict=True):
        assert value is not None
        assert exact is not None
        largest = float((value.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))
        if not largest <= tolerance:
            return f"its {name} deviates by {largest:.1e} of the largest"
    return None
