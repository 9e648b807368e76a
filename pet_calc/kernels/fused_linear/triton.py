"""The same operation on a GPU: one kernel in each pass, nothing in between is written to memory.

A program of the forward pass holds a tile of the result and runs along the rows of tokens and
weights. The root mean square of a token is known at the end of that run, and divides the product
then. A program of the backward pass holds whole rows of the gradient on the tokens, as their
normalization couples all numbers of one, and runs along the outputs.

Tokens are kept for the backward pass where the gradient depends on them, and so is what enters a
gate: 2 KB of a token at d = 128, half of what torch keeps there. Computing that again instead takes
half as many products again, with three of TensorFloat-32 as long as to write and read the bytes,
and such a kernel spills registers. Gradients on weights, which only training needs, and second
derivatives are those of the reference.
"""

# Triton reads the types of kernels from their calls
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pet_calc.kernels.derivatives import reference_gradients
from pet_calc.kernels.fused_linear import reference
from pet_calc.kernels.fused_linear.reference import Prologue
from pet_calc.kernels.precision import Precision, current_precision
from pet_calc.kernels.triton_product import product, product_constants


@triton.jit
def forward_kernel(
    x, weight, bias, residual, out, kept, n, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, PROLOGUE: tl.constexpr, GATED: tl.constexpr,
    RESIDUAL: tl.constexpr, KEEP: tl.constexpr, M: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
    PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """A tile of the result: M tokens, C of WIDTH numbers each."""
    # programs that read the same tokens follow each other
    blocks = tl.cdiv(WIDTH, C)
    start = (tl.program_id(0) // blocks).to(tl.int64) * M
    i, c = tl.arange(0, M), (tl.program_id(0) % blocks) * C + tl.arange(0, C)
    inside, there = i < n - start, c < WIDTH
    y = tl.zeros((M, C), x.dtype.element_ty)
    gate = tl.zeros((M, C), x.dtype.element_ty)
    squares = tl.zeros((M,), x.dtype.element_ty)
    for first in range(0, K, S):
        k = first + tl.arange(0, S)
        cells = inside[:, None] & (k < K)[None, :]
        a = tl.load(x + start * K + i[:, None] * K + k[None, :], mask=cells, other=0.0)
        if PROLOGUE == "rms":
            squares += tl.sum(a * a, 1)
        if PROLOGUE == "silu":
            a = a * tl.sigmoid(a)
        cells = (k < K)[:, None] & there[None, :]
        part = c[None, :] * K + k[:, None]
        w = tl.load(weight + part, mask=cells, other=0.0)
        y += product(a, w, PRODUCT, ROUNDED, INTERPRETED)
        if GATED:
            w = tl.load(weight + WIDTH * K + part, mask=cells, other=0.0)
            gate += product(a, w, PRODUCT, ROUNDED, INTERPRETED)
    if PROLOGUE == "rms":
        scale = (1.0 / tl.sqrt(squares / K + eps))[:, None]
        y = y * scale
        gate = gate * scale
    y += tl.load(bias + c, mask=there, other=0.0)[None, :]
    cells = inside[:, None] & there[None, :]
    to = i[:, None] * WIDTH + c[None, :]
    if GATED:
        gate += tl.load(bias + WIDTH + c, mask=there, other=0.0)[None, :]
        if KEEP:
            twice = i[:, None] * (2 * WIDTH) + c[None, :]
            tl.store(kept + start * 2 * WIDTH + twice, y, mask=cells)
            tl.store(kept + start * 2 * WIDTH + WIDTH + twice, gate, mask=cells)
        y = y * tl.sigmoid(gate)
    if RESIDUAL:
        y += tl.load(residual + start * WIDTH + to, mask=cells, other=0.0)
    tl.store(out + start * WIDTH + to, y, mask=cells)


@triton.jit
def backward_kernel(
    x, kept, weight, grad, d_x, n, eps,
    K: tl.constexpr, WIDTH: tl.constexpr, PROLOGUE: tl.constexpr, GATED: tl.constexpr,
    M: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
    PRODUCT: tl.constexpr, ROUNDED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Gradient on M tokens, of K ≤ S numbers each."""
    start = tl.program_id(0).to(tl.int64) * M
    i, k = tl.arange(0, M), tl.arange(0, S)
    inside, there = i < n - start, k < K
    d = tl.zeros((M, S), grad.dtype.element_ty)
    for first in range(0, WIDTH, C):
        c = first + tl.arange(0, C)
        cells = inside[:, None] & (c < WIDTH)[None, :]
        g = tl.load(grad + start * WIDTH + i[:, None] * WIDTH + c[None, :], mask=cells, other=0.0)
        part = c[:, None] * K + k[None, :]
        weights = (c < WIDTH)[:, None] & there[None, :]
        if GATED:
            twice = i[:, None] * (2 * WIDTH) + c[None, :]
            y = tl.load(kept + start * 2 * WIDTH + twice, mask=cells, other=0.0)
            gate = tl.load(kept + start * 2 * WIDTH + WIDTH + twice, mask=cells, other=0.0)
            opening = tl.sigmoid(gate)
            g = g * opening
            w = tl.load(weight + WIDTH * K + part, mask=weights, other=0.0)
            d += product(g * y * (1.0 - opening), w, PRODUCT, ROUNDED, INTERPRETED)
        w = tl.load(weight + part, mask=weights, other=0.0)
        d += product(g, w, PRODUCT, ROUNDED, INTERPRETED)
    cells = inside[:, None] & there[None, :]
    row = i[:, None] * K + k[None, :]
    if PROLOGUE != "none":
        a = tl.load(x + start * K + row, mask=cells, other=0.0)
        if PROLOGUE == "rms":
            scale = (1.0 / tl.sqrt(tl.sum(a * a, 1) / K + eps))[:, None]
            a = a * scale
            d = (d - a * (tl.sum(d * a, 1) / K)[:, None]) * scale
        else:
            opening = tl.sigmoid(a)
            d = d * opening * (1.0 + a * (1.0 - opening))
    tl.store(d_x + start * K + row, d, mask=cells)


def launch(
    k: int, width: int, prologue: Prologue, gated: bool, precision: Precision
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constants of the forward and the backward kernel, with warps and stages of a program."""
    common: dict[str, Any] = {
        "K": k,
        "WIDTH": width,
        "PROLOGUE": prologue,
        "GATED": gated,
        **product_constants(precision),
    }
    # the smallest operand of a product on tensor cores has 16 rows and columns
    columns = max(16, triton.next_power_of_2(width))
    whole = max(16, triton.next_power_of_2(k))
    # found by compiling for Hopper: nothing spills at d = 128, and 16 bytes of a thread at 256 for
    # gates in the highest precision
    forward = {"M": 128, "C": min(64 if gated else 128, columns), "S": min(32, whole)}
    backward = {"M": 64, "C": min(16 if gated and whole > 128 else 32, columns), "S": whole}
    return (
        common | forward | {"num_warps": 8, "num_stages": 3},
        common | backward | {"num_warps": 8 if whole > 64 else 4, "num_stages": 2 if gated else 3},
    )


def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None,
    *, prologue: Prologue = "none", gated: bool = False, precision: Precision | None = None,
) -> Tensor:  # fmt: skip
    """Linear map of tokens; see the reference.

    By default the products have the precision that is in force. Sums and all else are in float32.
    """
    precision = precision or current_precision()
    m = len(weight) // 2 if gated else len(weight)
    # made contiguous outside of the function, which keeps its inputs for second derivatives
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    to = None if residual is None else residual.reshape(-1, m).contiguous()
    arguments = (rows, weight.contiguous(), bias.contiguous(), to, prologue, gated, precision)
    out = _FusedLinear.apply(*arguments)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], m)


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None,
        prologue: Prologue, gated: bool, precision: Precision,
    ) -> Tensor:  # fmt: skip
        n, k = x.shape
        width = len(weight) // 2 if gated else len(weight)
        ctx.form, ctx.precision = {"prologue": prologue, "gated": gated}, precision
        trained = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.linear = prologue == "none" and not gated and not trained
        out = x.new_empty(n, width)
        kept = x.new_empty(n, 2 * width) if gated and ctx.needs_input_grad[0] else None
        ctx.save_for_backward(None if ctx.linear else x, weight, bias, kept)
        if n > 0:
            how, _ = launch(k, width, prologue, gated, precision)
            grid = (triton.cdiv(n, how["M"]) * triton.cdiv(width, how["C"]),)
            # what is not used may be any tensor
            others = (out if residual is None else residual, out, out if kept is None else kept)
            how |= {"RESIDUAL": residual is not None, "KEEP": kept is not None}
            eps = torch.finfo(x.dtype).eps
            forward_kernel[grid](x, weight, bias, *others, n, eps, **how)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kept = ctx.saved_tensors
        needed = ctx.needs_input_grad
        d_residual = grad if needed[3] else None
        nothing = (None, None, None)
        if torch.is_grad_enabled() and ctx.linear:
            return grad @ weight, None, None, d_residual, *nothing
        if torch.is_grad_enabled() or needed[1] or needed[2]:
            linear = partial(reference.fused_linear, **ctx.form)
            found = reference_gradients(linear, (x, weight, bias), needed[:3], (grad,))
            return *found, d_residual, *nothing
        if not needed[0]:
            return None, None, None, d_residual, *nothing
        n, k = len(grad), weight.shape[1]
        grad = grad.contiguous()
        d_x = grad.new_empty(n, k)
        if n > 0:
            _, how = launch(k, grad.shape[1], **ctx.form, precision=ctx.precision)
            eps = torch.finfo(grad.dtype).eps
            tensors = (d_x if x is None else x, d_x if kept is None else kept, weight, grad, d_x)
            backward_kernel[(triton.cdiv(n, how["M"]),)](*tensors, n, eps, **how)
        return d_x, None, None, d_residual, *nothing
