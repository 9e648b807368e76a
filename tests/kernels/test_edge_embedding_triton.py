"""The Triton kernels of the edge embedding against the reference; compiled ahead of time."""

import importlib.util
import re

import pytest
import torch
from kernels.processes import in_a_process, resources
from kernels.test_edge_embedding import CASES, derivatives, deviation, make

from pet_calc.kernels.edge_embedding import edge_embedding, reference
from pet_calc.kernels.operation import Selection, selecting

MODULE = "kernels.test_edge_embedding_triton"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")


@needs_triton
def test_kernels_are_the_reference():
    in_a_process(MODULE, "compare_interpreted", TRITON_INTERPRET="1")


def compare_interpreted():
    from pet_calc.kernels.edge_embedding import triton

    for case in CASES:
        arguments = make(case)
        # without gradients on table and matrix the backward pass is a kernel too
        for of in ((0, 3), (0, 3, 5, 6)):
            found = derivatives(triton.edge_embedding, *arguments, of=of)
            expected = derivatives(reference.edge_embedding, *arguments, of=of)
            assert deviation(found, expected) < 1e-11, (case, of, deviation(found, expected))
            # control: a deviation of 1e-9 in any of them is seen
            for k, x in enumerate(found):
                spoilt = [*found[:k], x * (1 + 1e-9) + 1e-9, *found[k + 1 :]]
                assert deviation(spoilt, expected) > 1e-10 or not x.numel()
    # float32, with memory of outputs that holds NaN before
    tensors, encoding = make("radial", dtype=torch.float32)
    plain = torch.empty, torch.empty_like
    torch.empty = lambda *shape, **k: torch.full(shape, torch.nan, **k)
    torch.empty_like = lambda t, **k: torch.full(t.shape, torch.nan, dtype=t.dtype)
    try:
        found = derivatives(triton.edge_embedding, tensors, encoding, of=(0, 3))[:4]
    finally:
        torch.empty, torch.empty_like = plain
    expected = derivatives(reference.edge_embedding, *make("radial"), of=(0, 3))[:4]
    assert 0 < deviation(found, expected) < 1e-5


@needs_triton
def test_a_model_with_kernels_is_the_model():
    in_a_process(MODULE, "compare_models", TRITON_INTERPRET="1")


def compare_models():
    from calculators.small_potentials import liquid, rare_pet

    from pet_calc.io.structures.atoms import system_from_atoms
    from pet_calc.models import evaluate
    from pet_calc.neighbors import neighbor_list

    system = system_from_atoms(liquid(1, length=4.0))
    for options in (
        {"input_encoding": "radial", "num_neighbors_adaptive": 6.0},
        {"featurizer_type": "residual", "cutoff_function": "Cosine"},
    ):
        model = rare_pet(**options)
        edges = neighbor_list(system, model.cutoff)
        expected = evaluate(model, system, edges)
        selection = Selection("triton", allowed=frozenset({edge_embedding.name}))
        with selecting(selection):
            found = evaluate(model, system, edges)
        assert selection.used == {edge_embedding.name: "highest"}
        pairs = [(found.energies, expected.energies), (found.forces, expected.forces)]
        assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-10
        assert float(expected.forces.abs().max()) > 1e-2


#: Registers of a thread that each kernel may take, by precision; cubins of Triton 3.6.
REGISTERS = {"highest": 255, "high": 208}


@pytest.mark.parametrize("precision", ["highest", "high"])
@needs_triton
def test_kernels_compile_for_hopper(precision):
    in_a_process(MODULE, "compile_for_hopper", precision, TRITON_INTERPRET="0")


def compile_for_hopper(precision):
    """Tensor cores are used, and nothing spilled, at d = 128 with both encodings."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.edge_embedding import triton

    for radial, rows in ((True, 55), (False, 4)):
        encoding = reference.Encoding(radial, 0.1, 0.5, True)
        how = triton.launch(torch.empty(rows, 128), encoding, precision)
        options = {"num_warps": how.pop("num_warps")}
        for kernel in (triton.forward_kernel, triton.backward_kernel):
            signature = dict.fromkeys(kernel.arg_names, "*fp32")
            signature |= {"mask": "*i1", "species": "*i64"}
            signature = {k: v for k, v in signature.items() if k in kernel.arg_names}
            signature |= {"n": "i32", "spacing": "fp32", "width": "fp32"}
            signature |= dict.fromkeys(how, "constexpr")
            source = ASTSource(fn=kernel, signature=signature, constexprs=how)
            target = GPUTarget("cuda", 90, 32)
            compiled = compiler.compile(source, target=target, options=options)
            assert "sm_90" in compiled.asm["ptx"]
            assert re.search(r"\b(mma|wgmma)\b", compiled.asm["ptx"]), "no tensor cores"
            registers, stack = resources(compiled)
            print(kernel.__name__, precision, radial, "registers", registers, "stack", stack)
            assert stack == 0, f"{stack} bytes of registers spilled"
            assert registers <= REGISTERS[precision]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(("precision", "tolerance"), [("highest", 1e-4), ("high", 2e-2)])
@pytest.mark.parametrize("case", ["cartesian", "radial", "radial-cosine"])
def test_kernels_on_the_gpu(case, precision, tolerance):
    from pet_calc.kernels.edge_embedding import triton

    tensors, encoding = make(case, dtype=torch.float32)
    moved = [t.cuda() for t in tensors]

    def kernel(*arguments):
        return triton.edge_embedding(*arguments, precision)

    found = derivatives(kernel, moved, encoding, of=(0, 3))[:4]
    expected = derivatives(reference.edge_embedding, *make(case), of=(0, 3))[:4]
    assert deviation([x.cpu().double() for x in found], expected) < tolerance
