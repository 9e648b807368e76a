"""Choice of the implementation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor

from pet_calc.kernels import paths
from pet_calc.kernels.cutoff_attention import analytic, reference
from pet_calc.kernels.paths import Precision
from pet_calc.kernels.precision import current_precision

_log = logging.getLogger("pet_calc")

#: Largest deviation from the reference that a precision may have, relative to the largest value.
TOLERANCE: Final = {"highest": 1e-4, "high": 2e-2, "fast": 1e-1}

# what the check at first use has found, by device, type and shape
_checked: dict[tuple[object, ...], str | None] = {}

Backend = Literal["auto", "batched", "triton"]

#: Most tokens of an atom for which one program holds its attention weights in registers.
MOST_TOKENS: Final = 128
#: Widest head, likewise.
WIDEST_HEAD: Final = 64


def triton_refusal(packed: Tensor, heads: int) -> str | None:
    """Why the Triton kernels cannot run on such tensors; None if they can."""
    if (refusal := paths.triton_refusal(packed)) is not None:
        return refusal
    if packed.shape[1] > MOST_TOKENS:
        return f"they take at most {MOST_TOKENS} tokens per atom, not {packed.shape[1]}"
    width = packed.shape[2] // (3 * heads)
    if width > WIDEST_HEAD:
        return f"they take heads of width {WIDEST_HEAD} at most, not {width}"
    return None


def cutoff_attention(
    packed: Tensor,
    log_weight: Tensor,
    heads: int,
    scale: float,
    *,
    backend: Backend = "auto",
    precision: Precision | None = None,
) -> Tensor:
    """Attention over the tokens of one atom with a multiplicative weight on every key.

    Parameters
    ----------
    packed, log_weight, heads, scale
        As of the reference.
    backend : {"auto", "batched", "triton"}
        "auto" is batched products of small matrices; with ``PET_CALC_TRITON=1`` in the environment
        it is the Triton kernels on CUDA devices where they can run (the reason why not goes to
        the logger ``pet_calc``, level DEBUG) and agree with the reference at first use. They have
        been run in Triton's interpreter and compiled, but on no GPU yet, so that they have to be
        asked for. A backend named here is used or raises.
    precision : {"highest", "high", "fast"}, optional
        Of the products in the Triton kernels: that of float32 (three products of TensorFloat-32),
        TensorFloat-32, bfloat16. Sums and the softmax are in float32 always. The other backend
        computes in the precision of its input. By default what is in force, see
        `pet_calc.kernels.precision`.
    """
    if backend not in ("auto", "batched", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'batched' or 'triton', got {backend!r}")
    if precision not in (None, "highest", "high", "fast"):
        raise ValueError(f"`precision` must be 'highest', 'high' or 'fast', got {precision!r}")
    # a compiled region fuses its own attention
    wanted = not torch.compiler.is_compiling() and paths.triton_wanted(packed.device)
    if backend == "batched" or (backend == "auto" and not wanted):
        return analytic.cutoff_attention(packed, log_weight, heads, scale)
    refusal = triton_refusal(packed, heads)
    if refusal is None:
        precision = precision or current_precision()
        from pet_calc.kernels.cutoff_attention import triton

        fused = partial(triton.cutoff_attention, precision=precision)
        if backend == "triton":
            return fused(packed, log_weight, heads, scale)
        key = (packed.device, packed.dtype, packed.shape[1], packed.shape[2], heads, precision)
        if len(packed) > 0 and key not in _checked:
            _checked[key] = deviation(fused, packed, log_weight, heads, scale, precision)
            if _checked[key] is not None:
                _log.warning("cutoff attention falls back to torch: %s", _checked[key])
        if _checked.get(key) is None and paths.take(paths.CUTOFF_ATTENTION, precision):
            return fused(packed, log_weight, heads, scale)
        return analytic.cutoff_attention(packed, log_weight, heads, scale)
    if backend == "triton":
        raise ValueError(f"the Triton kernels cannot be used: {refusal}")
    _log.debug("cutoff attention without Triton kernels: %s", refusal)
    return analytic.cutoff_attention(packed, log_weight, heads, scale)


def deviation(
    fused: Callable[..., Tensor],
    packed: Tensor,
    log_weight: Tensor,
    heads: int,
    scale: float,
    precision: Precision,
) -> str | None:
    """How a fused form differs from the reference on the first atoms; None if it agrees.

    Values and gradients are compared, relative to the largest of each, with the tolerance
    `TOLERANCE` of the precision.
    """
    found = []
    forms: tuple[tuple[Callable[..., Tensor], torch.dtype], ...] = (
        (fused, packed.dtype), (reference.cutoff_attention, torch.float64),
    )  # fmt: skip
    for kernel, dtype in forms:
        inputs = [t[:8].detach().to(dtype).clone().requires_grad_() for t in (packed, log_weight)]
        with torch.enable_grad():
            try:
                out = kernel(*inputs, heads, scale)
                out.square().sum().backward()
            except Exception as error:  # a compiler that fails has many names for it
                return f"{type(error).__name__}: {error}"
        found.append([out.detach(), *(t.grad for t in inputs)])
    for name, value, exact in zip(("value", "gradient", "weight gradient"), *found, strict=True):
        assert value is not None
        assert exact is not None
        largest = float((value.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))
        if not largest <= TOLERANCE[precision]:
            return f"its {name} deviates by {largest:.1e} of the largest ({precision} precision)"
    return None
