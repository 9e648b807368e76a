"""The Triton kernels of the neighbor matrix against the reference; compiled ahead of time."""

import importlib.util
import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from contracts.structures import STRUCTURES, system, water_box
from kernels.processes import in_a_process, resources

from pet_calc.geometry import System
from pet_calc.kernels.neighbor_matrix import (
    MOST_SLOTS,
    chosen_method,
    image_counts,
    neighbor_matrix,
)
from pet_calc.kernels.operation import using_kernels
from pet_calc.neighbors import neighbor_list

MODULE = "kernels.test_neighbor_matrix_triton"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")

TRICLINIC = np.array([[3.9, 0.3, -0.2], [1.1, 4.2, 0.4], [-0.9, 0.8, 3.6]])
FCC = 1.8 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
METHODS = ("tiles", "cells")


def scattered(n, cell, pbc, spread, seed=0):
    rng = np.random.default_rng(seed)
    return system(spread * (rng.random((n, 3)) - 0.5) @ cell, [1] * n, cell, pbc)


def build(structure, cutoff, capacity=32, **options):
    s = structure
    return neighbor_matrix(
        s.positions, s.cell, s.pbc, s.system_index, cutoff, capacity=capacity, **options
    )


def difference(found, expected):
    """Names of the tensors that differ in type, shape or any element."""
    names = []
    for field in fields(found):
        x, y = getattr(found, field.name), getattr(expected, field.name)
        if x.dtype != y.dtype or not torch.equal(x, y):
            names.append(field.name)
    return names


def same_edges(found, expected):
    return (
        torch.equal(found.edge_index, expected.edge_index)
        and torch.equal(found.cell_shifts, expected.cell_shifts)
        and torch.equal(found.reverse_edge, expected.reverse_edge)
    )


def compare(structure, cutoff, capacity=32, methods=METHODS):
    """All tensors through both methods are those of the reference, the edges those of vesin."""
    expected = build(structure, cutoff, capacity, backend="reference")
    assert not expected.overflow
    for method in methods:
        found = build(structure, cutoff, capacity, backend="triton", method=method)
        assert not difference(found, expected), (method, difference(found, expected))
        if structure.positions.dtype == torch.float64:
            assert same_edges(found.to_edges(), neighbor_list(structure, cutoff)), method
    return expected


@needs_triton
@pytest.mark.parametrize("cases", [("periodicity", "overflow"), ("kinds", "free")], ids="-".join)
def test_kernels_are_the_reference(cases):
    in_a_process(MODULE, "compare_cases", *cases, TRITON_INTERPRET="1")


def compare_cases(*cases):
    for case in cases:
        globals()[f"compare_{case}"]()


def compare_periodicity():
    """Every mix, triclinic, in a cell smaller than the cutoff, with atoms cells away."""
    counts = set()
    for pbc in itertools.product((False, True), repeat=3):
        found = compare(scattered(3, TRICLINIC, pbc, spread=7.0), 4.1, 32)
        counts.add(int(found.count.sum()))
    assert max(counts) > 40
    assert len(counts) > 4
    # control: the pair that is farthest apart is missed when it is left out
    structure = scattered(3, TRICLINIC, (True,) * 3, spread=7.0)
    whole = build(structure, 4.1, 32, backend="triton")
    lengths = whole.vectors(structure.positions, structure.cell, structure.system_index).norm(
        dim=-1
    )
    lacking = build(structure, float(lengths.max()) - 1e-9, 32, backend="triton")
    assert int(whole.count.sum()) - int(lacking.count.sum()) == 2
    assert {"neighbors", "count", "reverse"} <= set(difference(whole, lacking))


def compare_kinds():
    """One atom that sees only itself, a left-handed cell, a batch of all kinds, float32."""
    assert compare(scattered(1, FCC, (True,) * 3, 9.0), 6.0, 100).count.tolist() == [78]
    left = scattered(4, TRICLINIC[[1, 0, 2]], (True, True, True), 1.0)
    compare(left, 3.0)
    names = ("molecule-4", "one-atom", "slab-9", "one-atom-crystal", "silicon-2-strained")
    parts = [STRUCTURES[name]() for name in names]
    batch = System.concatenate([*parts, left])
    found = compare(batch, 3.3)
    assert 0 in found.count.tolist()
    assert int(found.count.sum()) > 100
    few = System.concatenate([parts[0], left])
    compare(replace(few, positions=few.positions.float()), 3.3)
    # no atoms, alone and in a batch
    nothing = system(np.zeros((0, 3)), [])
    for empty in (nothing, System.concatenate([nothing, parts[0], nothing])):
        expected = build(empty, 3.0, backend="reference")
        assert not difference(build(empty, 3.0, backend="triton", method="cells"), expected)


def compare_free():
    """More cells than three along free directions, which repeat: a chain, a sheet, a cluster."""
    how = {"methods": ["cells"]}
    rng = np.random.default_rng(3)
    box = np.diag([2.6, 2.7, 9.0])
    chain = rng.random((14, 3)) @ np.diag([2.6, 2.7, 40.0])
    assert (
        int(compare(system(chain, [1] * 14, box, (True, True, False)), 2.5, **how).count.sum()) > 40
    )
    sheet = rng.random((18, 3)) @ np.diag([2.6, 30.0, 10.0])
    compare(system(sheet, [1] * 18, box, (True, False, False)), 2.5, **how)
    cluster = rng.random((27, 3)) * [30.0, 5.0, 5.0] + [-1e4, 3.0, 7.0]
    found = compare(system(cluster, [1] * 27), 2.5, **how)
    assert int(found.count.sum()) > 10
    # several cells in every periodic direction
    compare(scattered(28, 3.3 * TRICLINIC, (True,) * 3, 1.0), 3.6, **how)


def compare_overflow():
    """True counts, the flag, indices within bounds; and nothing that waits for the device."""
    structure = scattered(3, TRICLINIC, (True,) * 3, 7.0)
    full = build(structure, 3.0, 32, backend="reference")
    images = image_counts(structure.cell, structure.pbc, 3.0)
    broken = structure.positions.clone()
    broken[2, 1] = torch.nan
    for method in METHODS:
        options = {"backend": "triton", "method": method, "images": images}
        short = build(structure, 3.0, 3, **options)
        assert short.overflow
        assert torch.equal(short.count, full.count)
        assert ((short.neighbors >= 0) & (short.neighbors <= 3)).all()
        assert ((short.reverse >= 0) & (short.reverse < 3 * 3)).all()
        assert not build(structure, 3.0, int(full.count.max()), **options).overflow
        assert build(replace(structure, positions=broken), 3.0, **options).overflow
        assert build(structure, 3.0, **(options | {"images": (1, 0, 1)})).overflow
        assert build(structure, 12.0, 8, **(options | {"images": (1, 1, 1)})).overflow
        with torch.autograd.profiler.profile(use_kineto=False) as profile:
            build(scattered(2, FCC, (True,) * 3, 1.0), 2.0, **(options | {"images": (2, 2, 2)}))
        used = {event.name for event in profile.function_events}
        assert "aten::searchsorted" in used
        assert not used & {"aten::_local_scalar_dense", "aten::item", "aten::nonzero"}
    cell = structure.cell.clone()
    cell[0, 0, 0] = torch.inf
    options = {"backend": "triton", "images": images}
    assert build(replace(structure, cell=cell), 3.0, **options).overflow


@needs_triton
def test_kernels_compile_for_hopper():
    in_a_process(MODULE, "compile_for_hopper", TRITON_INTERPRET="0")


#: Most registers a thread of each kernel may need; none may be spilled.
REGISTERS = {
    "lattice": 96, "wrap": 80, "place": 32, "tiles": 128, "cells": 224, "sort": 80, "finish": 96,
}  # fmt: skip
#: Types of what is not a pointer to 32-bit integers.
TYPES = {
    "x": "*fp64", "x_out": "*fp64", "x_sorted": "*fp64", "reciprocal": "*fp64", "pbc": "*i1",
    "system_index": "*i64", "first_atom": "*i64", "keys": "*i64", "found": "*i64",
    "reverse": "*i64",
    "n_atoms": "i32", "capacity": "i32", "most0": "i32", "most1": "i32", "most2": "i32",
}  # fmt: skip


def compile_for_hopper():
    """Distances are in float64 with all digits of the cutoff, and nothing is spilled."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.neighbor_matrix import triton

    usual, wide = triton.constants(5.1, 64), triton.constants(5.1, MOST_SLOTS)
    usual["wrap"]["CELLS"] = True
    plans = [(name, how, "fp64") for name, how in usual.items()]
    plans += [("wrap", usual["wrap"] | {"CELLS": False}, real) for real in ("fp64", "fp32")]
    plans += [(name, wide[name], "fp64") for name in ("sort", "finish")]
    # an argument that is one is a constant for the compiler
    ones = {"most0": 1, "most1": 1, "most2": 1, "capacity": 1, "n_atoms": 1}
    plans += [
        (name, usual[name] | {k: v for k, v in ones.items() if k in names}, "fp64")
        for name, names in {
            "lattice": ("most0", "most1", "most2"),
            "tiles": ("most0", "most1", "most2", "capacity"),
            "finish": tuple(ones),
        }.items()
    ]
    for name, how, real in plans:
        constants = dict(how)
        options = {"num_warps": constants.pop("num_warps")}
        kernel = getattr(triton, f"{name}_kernel")
        types = TYPES | {"positions": f"*{real}", "cell": f"*{real}"}
        signature = {
            a: "constexpr" if a in constants else types.get(a, "*i32") for a in kernel.arg_names
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = compiler.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert "sm_90" in compiled.asm["ptx"]
        if real == "fp64":
            assert "f32" not in compiled.asm["ttir"], f"{name}: half of the digits are lost"
        registers, stack = resources(compiled)
        print(name, real, options, "registers", registers, "stack", stack)
        assert stack == 0, f"{name}: {stack} bytes of registers spilled"
        assert registers <= REGISTERS[name], (name, registers)


def test_refusals(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    structure = water_box()
    with pytest.raises(ValueError, match=r"cannot be used: .*(CUDA devices, not on cpu|installed)"):
        build(structure, 3.0, backend="triton")
    if HAS_TRITON:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        with pytest.raises(ValueError, match="at most 2048 slots per atom, not 4096"):
            build(structure, 3.0, 4096, backend="triton")
        half = replace(structure, positions=structure.positions.half())
        with pytest.raises(ValueError, match=r"float32 or float64, not torch\.float16"):
            build(half, 3.0, backend="triton")


def test_method_goes_by_the_candidates_of_an_atom():
    assert chosen_method("auto", 192, 1, (1, 1, 1)) == "tiles"
    assert chosen_method("auto", 100_000, 1, (1, 1, 1)) == "cells"
    assert chosen_method("auto", 100_000, 512, (1, 1, 1)) == "tiles"
    assert chosen_method("auto", 1, 1, (4, 4, 4)) == "tiles"
    assert chosen_method("cells", 1, 1, (4, 4, 4)) == "cells"
    with pytest.raises(ValueError, match="fewer than 2\\^31 candidates"):
        chosen_method("tiles", 10**8, 1, (1, 1, 1))


def on_the_host(value):
    """A dataclass of tensors, on the CPU."""
    return type(value)(**{f.name: getattr(value, f.name).cpu() for f in fields(value)})


@pytest.mark.gpu
@needs_triton
def test_kernels_on_the_gpu():
    """Both methods and the reference, in CUDA graphs that are replayed for other positions."""
    batch = System.concatenate([*(make() for make in STRUCTURES.values()), water_box(3)])
    images = image_counts(batch.cell, batch.pbc, 3.7)
    noise = torch.randn(batch.n_atoms, 3, generator=torch.Generator().manual_seed(0))
    other = replace(batch, positions=batch.positions + 3.0 * noise.double())
    on_device = batch.to("cuda")
    expected = [build(s, 3.7, 200, images=images, backend="reference") for s in (batch, other)]
    assert difference(*expected)
    for options in (
        {"backend": "reference"},
        *({"backend": "triton", "method": m} for m in METHODS),
    ):
        options["images"] = images
        on_device.positions.copy_(batch.positions)
        found = build(on_device, 3.7, 200, **options)
        assert not difference(on_the_host(found), expected[0])
        assert same_edges(on_the_host(found.to_edges()), neighbor_list(batch, 3.7))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = build(on_device, 3.7, 200, **options)
        for structure, list_of_it in zip((other, batch), expected[::-1], strict=True):
            on_device.positions.copy_(structure.positions)
            graph.replay()
            assert not difference(on_the_host(captured), list_of_it)
    with using_kernels("triton") as selection:
        edges = neighbor_list(on_device, 3.7)
    assert same_edges(on_the_host(edges), neighbor_list(batch, 3.7))
    assert list(selection.used) == ["neighbor list in Triton (tiles)"]
