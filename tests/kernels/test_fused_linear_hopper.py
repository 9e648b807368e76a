"""The Triton kernels of the fused linear map compiled ahead of time for Hopper."""

import importlib.util
import re

import pytest
from kernels.processes import in_a_process, resources
from kernels.test_fused_linear import FORMS

MODULE = "kernels.test_fused_linear_hopper"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")

#: Registers of a thread that each kernel may take, by precision; cubins of Triton 3.6.
REGISTERS = {"highest": 255, "high": 216, "fast": 216}
#: Form, and width of the tokens and of the result: in, gate, out and `compress` at d = 128.
SHAPES = {
    "in": ("rms", 128, 384),
    "gate": ("rms-gated", 128, 256),
    "out": ("residual", 256, 128),
    "compress": ("silu", 128, 128),
}
#: The kernels that take most registers, and those of bfloat16; the others take a minute.
QUICK = [("highest", "gate"), ("fast", "compress")]
CASES = [
    pytest.param(p, name, marks=() if (p, name) in QUICK else pytest.mark.slow)
    for p in REGISTERS
    for name in SHAPES
]


@pytest.mark.parametrize(("precision", "name"), CASES)
@needs_triton
def test_kernels_compile_for_hopper(precision, name):
    in_a_process(MODULE, "compile_for_hopper", precision, name, TRITON_INTERPRET="0")


def compile_for_hopper(precision, name):
    """The tensor cores of Hopper are used, and nothing spilled."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.fused_linear import triton

    form, k, width = SHAPES[name]
    prologue, gated, residual = FORMS[form]
    forward, backward = triton.launch(k, width, prologue, gated, precision)
    forward |= {"RESIDUAL": residual, "KEEP": gated}
    for kernel, how in (
        (triton.forward_kernel, forward), (triton.backward_kernel, backward),
    ):  # fmt: skip
        options = {name: how.pop(name) for name in ("num_warps", "num_stages")}
        signature = dict.fromkeys(kernel.arg_names, "*fp32") | {"n": "i32", "eps": "fp32"}
        signature |= dict.fromkeys(how, "constexpr")
        # torch's memory is aligned, which Triton finds out by itself at a call
        aligned = {
            (index,): [["tt.divisibility", 16]]
            for index, argument in enumerate(kernel.arg_names)
            if signature[argument] == "*fp32"
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=how, attrs=aligned)
        target = GPUTarget("cuda", 90, 32)
        compiled = compiler.compile(source, target=target, options=options)
        ptx = compiled.asm["ptx"]
        assert "sm_90" in ptx
        kind = "bf16" if precision == "fast" else "tf32"
        assert re.search(rf"wgmma\.mma_async\S*{kind}\.{kind}", ptx), "no tensor cores"
        registers, stack = resources(compiled)
        print(kernel.__name__, name, precision, "registers", registers, "stack", stack)
        assert stack == 0, f"{stack} bytes of registers spilled by {name}"
        assert registers <= REGISTERS[precision]
        # what a multiprocessor of Hopper has for one block
        assert compiled.metadata.shared <= 227 * 1024
