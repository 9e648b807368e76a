"""Choice of the implementation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pet_calc.kernels import paths
from pet_calc.kernels.activations import gated_linear_unit, sigmoid_linear_unit
from pet_calc.kernels.fused_linear import reference
from pet_calc.kernels.fused_linear.reference import Prologue
from pet_calc.kernels.norms import rms_direction
from pet_calc.kernels.paths import Precision
from pet_calc.kernels.precision import current_precision

_log = logging.getLogger("pet_calc")

Backend = Literal["auto", "torch", "triton"]

#: Most numbers of a token, whose gradient one program holds.
WIDEST: Final = 256
#: Largest deviation from the reference that a precision may have, relative to the largest value.
TOLERANCE: Final = {"highest": 1e-4, "high": 2e-2, "fast": 1e-1}

# what the check at first use has found, by device, type, shape and form
_checked: dict[tuple[object, ...], str | None] = {}


def triton_refusal(x: Tensor) -> str | None:
    """Why the Triton kernels cannot run on such tokens; None if they can."""
    if (refusal := paths.triton_refusal(x)) is not None:
        return refusal
    if x.shape[-1] > WIDEST:
        return f"they take tokens of {WIDEST} numbers at most, not {x.shape[-1]}"
    return None


def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None,
    *, prologue: Prologue = "none", gated: bool = False,
    backend: Backend = "auto", precision: Precision | None = None,
) -> Tensor:  # fmt: skip
    """Linear map of tokens with what precedes and follows it.

    Parameters
    ----------
    x, weight, bias, residual, prologue, gated
        As of the reference.
    backend : {"auto", "torch", "triton"}
        "auto" is torch; with ``PET_CALC_TRITON=1`` in the environment it is the Triton kernels on
        CUDA devices, for weights that are not trained, where they can run (the reason why not goes
        to the logger ``pet_calc``, level DEBUG) and agree with the reference at first use. They
        have been run in Triton's interpreter and compiled, but on no GPU yet, so that they have to
        be asked for. A backend named here is used or raises.
    precision : {"highest", "high", "fast"}, optional
        Of the products in the Triton kernels: that of float32 (three products of TensorFloat-32),
        TensorFloat-32, bfloat16. Sums and all else are in float32. By default what is in force,
        see `pet_calc.kernels.precision`.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'torch' or 'triton', got {backend!r}")
    # a compiled region fuses by itself
    wanted = not torch.compiler.is_compiling() and paths.triton_wanted(x.device)
    if backend == "torch" or (backend == "auto" and not wanted):
        return composed(x, weight, bias, residual, prologue=prologue, gated=gated)
    refusal = triton_refusal(x)
    if backend == "triton" and refusal is not None:
        raise ValueError(f"the Triton kernels cannot be used: {refusal}")
    precision = precision or current_precision()
    form: dict[str, Any] = {"prologue": prologue, "gated": gated}
    if backend == "triton" or believed(x, weight, bias, residual, form, precision, refusal):
        from pet_calc.kernels.fused_linear import triton

        return triton.fused_linear(x, weight, bias, residual, **form, precision=precision)
    return composed(x, weight, bias, residual, prologue=prologue, gated=gated)


def composed(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None,
    *, prologue: Prologue = "none", gated: bool = False,
) -> Tensor:  # fmt: skip
    """The operation in torch: a product, with its prologue and gate as operations of their own."""
    if prologue == "rms":
        x = rms_direction(x)
    elif prologue == "silu":
        x = sigmoid_linear_unit(x)
    y = functional.linear(x, weight, bias)
    if gated:
        y = gated_linear_unit(y)
    return y if residual is None else residual + y


def believed(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, form: dict[str, Any],
    precision: Precision, refusal: str | None,
) -> bool:  # fmt: skip
    """Whether "auto" takes the Triton kernels, which it checks at first use."""
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        refusal = "weights are trained, whose gradients are torch's"
    if refusal is not None:
        _log.debug("linear map without Triton kernels: %s", refusal)
        return False
    key = (x.device, x.dtype, *weight.shape, residual is None, *form.values(), precision)
    if x.numel() > 0 and key not in _checked:
        from pet_calc.kernels.fused_linear import triton

        fused = partial(triton.fused_linear, precision=precision)
        _checked[key] = deviation(fused, (x, weight, bias, residual), form, precision)
        if _checked[key] is not None:
            _log.warning("linear map falls back to torch: %s", _checked[key])
    return _checked.get(key) is None and paths.take(paths.FUSED_LINEAR, precision)


def deviation(
    fused: Callable[..., Tensor], arguments: tuple[Tensor, Tensor, Tensor, Tensor | None],
    form: dict[str, Any], precision: Precision,
) -> str | None:  # fmt: skip
    """How a fused form differs from the reference on some tokens; None if it agrees.

    Values and gradients are compared, relative to the largest of each, with the tolerance
    `TOLERANCE` of the precision.
    """
    x, weight, bias, residual = (None if t is None else t.detach() for t in arguments)
    assert x is not None
    few = x.reshape(-1, x.shape[-1])[:256]
    to = None if residual is None else residual.reshape(-1, residual.shape[-1])[:256]
    found = []
    forms: tuple[tuple[Callable[..., Tensor], torch.dtype], ...] = (
        (fused, x.dtype), (reference.fused_linear, torch.float64),
    )  # fmt: skip
    for kernel, dtype in forms:
        inputs = [None if t is None else t.to(dtype) for t in (few, weight, bias, to)]
        inputs = [
            t if t is None or index in (1, 2) else t.clone().requires_grad_()
            for index, t in enumerate(inputs)
        ]
        with torch.enable_grad():
            try:
                out = kernel(*inputs, **form)
                out.square().sum().backward()
            except Exception as error:  # a compiler that fails has many names for it
                return f"{type(error).__name__}: {error}"
        found.append([out.detach(), *(t.grad for t in inputs if t is not None and t.requires_grad)])
    names = ("value", "gradient", "residual's gradient")[: len(found[0])]
    for name, value, exact in zip(names, *found, strict=True):
        largest = float((value.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))
        if not largest <= TOLERANCE[precision]:
            return f"its {name} deviates by {largest:.1e} of the largest ({precision} precision)"
    return None
