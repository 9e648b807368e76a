"""An accelerated form is used if it agrees with the reference on the structure at hand."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from calculators.small_potentials import liquid, small_pet
from contracts.models import random_crystalformer, random_pet
from contracts.structures import STRUCTURES
from kernels.processes import in_a_process

from pet_calc import PETCalculator
from pet_calc.calculators import verification
from pet_calc.calculators.crystalformer import CrystalformerCalculator
from pet_calc.calculators.verification import (
    TOLERANCES,
    SelfCheck,
    break_even,
    disagreement,
    tolerance,
)
from pet_calc.doctor.consistency import accelerated_kernels
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.kernels.cutoff_attention import cutoff_attention
from pet_calc.kernels.ecse_frames import pair_weights
from pet_calc.kernels.edge_embedding import edge_embedding
from pet_calc.kernels.fused_linear import fused_linear
from pet_calc.kernels.lattice_attention import lattice_attention
from pet_calc.kernels.operation import COMPILED, reference_only, use, using_kernels
from pet_calc.models import Results, evaluate
from pet_calc.models.pet.layers import Transformer
from pet_calc.models.recomputation import recomputed
from pet_calc.neighbors import api, neighbor_list
from pet_calc.neighbors.api import vesin_list

MODULE = "calculators.test_self_check"
CUTOFF_ATTENTION, EDGE_EMBEDDING = cutoff_attention.name, edge_embedding.name
FUSED_LINEAR, LATTICE_ATTENTION = fused_linear.name, lattice_attention.name
LOCAL_FRAMES = pair_weights.name
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the optional package triton is absent"
)


def calculator(monkeypatch, form=None, dtype=torch.float64):
    """A calculator whose transformers count as compiled, into `form` of their results."""
    calls = []

    def compiled(self, *inputs):
        calls.append(self)
        outputs = self.forward(*inputs)
        return outputs if form is None else tuple(form(x) for x in outputs)

    monkeypatch.setattr(Transformer, "__call__", compiled)
    calc = PETCalculator(small_pet(dtype=dtype))
    for layer in calc.potential.model.gnn_layers:
        layer.compiled = True
    return calc, calls


def plain(dtype=torch.float64):
    return PETCalculator(small_pet(dtype=dtype)).evaluate(liquid())


def test_a_wrong_form_is_left_with_a_warning_and_without_harm(monkeypatch):
    calc, calls = calculator(monkeypatch, lambda x: 1.001 * x)
    with pytest.warns(UserWarning, match="goes without transformers by torch.compile.*differs by"):
        found = calc.evaluate(liquid())
    assert np.array_equal(found["forces"], plain()["forces"])
    assert "allowed are" in calc.accelerated[COMPILED]
    made = len(calls)
    assert made > 0
    # told once, never used again, whatever the structure
    atoms = liquid(seed=1)
    atoms.calc = calc
    atoms.get_forces()
    assert len(calls) == made
    finding = accelerated_kernels(calc)
    assert finding.verdict == "warning"
    assert COMPILED in finding.found
    # another calculator judges by itself
    assert PETCalculator(small_pet()).accelerated == {}


def drop_a_pair(edges):
    """A list without its first pair."""
    keep = torch.ones(edges.n_edges, dtype=torch.bool)
    keep[[0, int(edges.reverse_edge[0])]] = False
    return edges.select(keep)


def out_of_registers(edges):
    raise RuntimeError("out of registers")


@pytest.fixture
def lists_in_triton(monkeypatch):
    """Lists of vesin in the place of those of the Triton kernels, spoiled by a function."""
    spoil = [lambda edges: edges]
    calls = []

    def triton_edges(system, cutoff):
        if not use("lists in Triton"):
            return None
        calls.append(cutoff)
        return spoil[0](vesin_list(system, cutoff))

    monkeypatch.setattr(verification, "require_kernels", lambda kernels, device: kernels)
    monkeypatch.setattr(api, "triton_selected", lambda system: True)
    monkeypatch.setattr(api, "triton_edges", triton_edges)
    return spoil, calls


def test_lists_are_verified_at_first_use(lists_in_triton):
    _, calls = lists_in_triton
    check = SelfCheck("triton")
    system = system_from_atoms(liquid())
    for _ in range(3):
        edges = check.neighbor_list(system, 4.0)
        assert torch.equal(edges.edge_index, vesin_list(system, 4.0).edge_index)
    assert calls == [4.0, 4.0, 4.0]
    assert check.verdicts == {"lists in Triton": None}


@pytest.mark.parametrize(
    ("how", "reason"),
    [(drop_a_pair, "edges, the reference has"), (out_of_registers, "RuntimeError: out of regis")],
)
def test_a_list_that_differs_is_not_used(lists_in_triton, how, reason):
    spoil, calls = lists_in_triton
    spoil[0] = how
    check = SelfCheck("triton")
    system = system_from_atoms(liquid())
    with pytest.warns(UserWarning, match="goes without lists in Triton"):
        edges = check.neighbor_list(system, 4.0)
    assert reason in check.verdicts["lists in Triton"]
    made = len(calls)
    again = check.neighbor_list(system, 4.0)  # and does not warn again
    assert len(calls) == made
    for found in (edges, again):
        assert torch.equal(found.edge_index, vesin_list(system, 4.0).edge_index)


@pytest.mark.parametrize(
    ("kind", "model"),
    [(PETCalculator, small_pet), (CrystalformerCalculator, lambda: random_crystalformer(1))],
)
def test_kernels_are_an_option(monkeypatch, kind, model):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"`kernels` must be .*, got 'cuda'"):
        kind(model(), device="cpu", kernels="cuda")
    with pytest.raises(ValueError, match="`kernels` 'triton' cannot be used"):
        kind(model(), device="cpu", kernels="triton")
    monkeypatch.setenv("PET_CALC_TRITON", "1")
    for kernels in ("auto", "reference"):
        calc = kind(model(), device="cpu", kernels=kernels)
        calc.evaluate(liquid())
        assert calc.accelerated == {}


def broken_compiler(x):
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (broken_compiler, "RuntimeError: no compiler"),
        (lambda x: torch.full_like(x, torch.nan), "nan"),
        (lambda x: x + 1e-6 * x.detach(), "energy of an atom differs"),
    ],
)
def test_whatever_goes_wrong_is_the_reason(monkeypatch, form, reason):
    calc, _ = calculator(monkeypatch, form)
    with pytest.warns(UserWarning, match="goes without"):
        assert np.array_equal(calc.evaluate(liquid())["energies"], plain()["energies"])
    assert reason in calc.accelerated[COMPILED]


def test_a_form_that_agrees_is_used_and_not_checked_again(monkeypatch, caplog):
    calc, calls = calculator(monkeypatch, lambda x: x * (1.0 + 1e-13))
    with caplog.at_level(logging.INFO, logger="pet_calc"):
        calc.evaluate_many([liquid()])
    assert calc.accelerated == {COMPILED: None}
    assert accelerated_kernels(calc).verdict == "pass"
    assert "a step takes" in caplog.text
    references = []
    monkeypatch.setattr(
        "pet_calc.calculators.verification.disagreement", lambda *a: references.append(a)
    )
    made = len(calls)
    calc.evaluate(liquid(seed=1))
    assert len(calls) > made
    assert references == []


def test_rounding_is_within_the_tolerance_of_its_precision_and_errors_are_not(monkeypatch):
    calc, _ = calculator(monkeypatch, lambda x: x * (1.0 + 1e-6), torch.float32)
    calc.evaluate(liquid())
    assert calc.accelerated == {COMPILED: None}
    calc, _ = calculator(monkeypatch, lambda x: x * (1.0 + 1e-2), torch.float32)
    with pytest.warns(UserWarning, match="goes without"):
        calc.evaluate(liquid())
    assert tolerance(torch.float64, ["highest"]) is TOLERANCES["float64"]
    assert tolerance(torch.float32, ["highest", "high"]) is TOLERANCES["high"]
    assert tolerance(torch.float32, ["fast", "high"]) is TOLERANCES["fast"]


def test_errors_of_a_structure_stay_errors(monkeypatch):
    from pet_calc.errors import SimulationError

    def far_off(x):
        raise SimulationError("far off")

    calc, _ = calculator(monkeypatch, far_off)
    with pytest.raises(SimulationError, match="far off"):
        calc.evaluate(liquid())
    assert calc.accelerated == {}


def test_tolerances_scale_with_forces_above_one():
    def results(energy, force):
        e = torch.tensor([energy], dtype=torch.float64)
        f = torch.tensor([[force, 0.0, 0.0]], dtype=torch.float64)
        return Results(energy=e, energies=e, forces=f, stress=None)

    allowed = TOLERANCES["highest"]
    for size in (0.01, 1.0, 50.0):
        scale = max(1.0, size)
        reference = results(1.0, size)
        assert disagreement(results(1.0, size + 0.9e-4 * scale), reference, allowed) is None
        assert "force differs" in disagreement(
            results(1.0, size + 1.1e-4 * scale), reference, allowed
        )
        assert disagreement(results(1.0 + 0.9e-5 * scale, size), reference, allowed) is None
        assert disagreement(results(1.0 + 1.1e-5 * scale, size), reference, allowed) is not None


def test_break_even_is_told():
    assert "after about 300 steps" in break_even(0.5, 0.4)
    assert "does not pay" in break_even(0.5, 0.5)


def test_a_backward_pass_uses_the_forms_of_its_forward_pass():
    seen = []

    def function(x):
        seen.append(use("a form"))
        return x.sin()

    x = torch.ones(3, requires_grad=True)
    with reference_only():
        y = recomputed(function, x)
    y.sum().backward()
    assert seen == [False, False]
    recomputed(function, x).sum().backward()
    assert seen == [False, False, True, True]


# --- Triton's interpreter ----------------------------------------------------------------------


@needs_triton
def test_broken_kernels_are_found_out():
    in_a_process(MODULE, "find_broken_kernels", TRITON_INTERPRET="1", PET_CALC_TRITON="1")


def find_broken_kernels():
    from pet_calc.kernels.cutoff_attention import triton as attention
    from pet_calc.kernels.fused_linear import triton as linear
    from pet_calc.kernels.lattice_attention import triton as lattice

    water = liquid(1, length=4.0)
    for dtype in ("float64", "float32"):
        calc = PETCalculator(small_pet(), dtype=dtype)
        calc.evaluate(water)
        assert calc.accelerated == dict.fromkeys(PET_FORMS), calc.accelerated
        calc = PETCalculator(small_pet(), dtype=dtype, kernels="reference")
        calc.evaluate(water)
        assert calc.accelerated == {}, calc.accelerated
    crystals = CrystalformerCalculator(random_crystalformer(1))
    crystals.evaluate(water)
    assert crystals.accelerated == {LATTICE_ATTENTION: None}, crystals.accelerated

    # control: kernels 0.1 % off
    for kernel, name, form, make in (
        (attention, "cutoff_attention", CUTOFF_ATTENTION, small_pet),
        (linear, "fused_linear", FUSED_LINEAR, small_pet),
        (lattice, "lattice_attention", LATTICE_ATTENTION, random_crystalformer),
    ):
        right = getattr(kernel, name)
        setattr(kernel, name, partial(wrong, right))
        calc = (PETCalculator if make is small_pet else CrystalformerCalculator)(make())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = calc.evaluate(water)
            calc.evaluate(water)
        told = [str(w.message) for w in caught if "goes without" in str(w.message)]
        assert len(told) == 1, told
        assert form in told[0]
        assert "differs by" in calc.accelerated[form]
        with mock.patch.dict(os.environ, PET_CALC_TRITON="0"):  # what "auto" goes by
            assert np.array_equal(found["forces"], calc.evaluate(water)["forces"])
        setattr(kernel, name, right)


def wrong(kernel, *arguments, **options):
    found = kernel(*arguments, **options)
    return tuple(1.001 * x for x in found) if isinstance(found, tuple) else 1.001 * found


#: What a plain PET uses.
PET_FORMS = {CUTOFF_ATTENTION, EDGE_EMBEDDING, FUSED_LINEAR}

MODELS = {
    "pet-cartesian": (lambda: random_pet(1), PET_FORMS),
    "pet-radial": (lambda: random_pet(2, input_encoding="radial"), PET_FORMS),
    "pet-angular": (
        lambda: random_pet(4, input_encoding="distance", angular_degree=3),
        {CUTOFF_ATTENTION, FUSED_LINEAR},
    ),
    "crystalformer": (lambda: random_crystalformer(1), {LATTICE_ATTENTION}),
}


@needs_triton
@pytest.mark.parametrize("model", ["pet-radial", "pet-angular", "crystalformer"])
def test_kernels_change_no_result(model):
    """On every seventh structure of the contracts; on all of them in the slow tests."""
    in_a_process(MODULE, "compare_contract_cases", model, 7, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_kernels_change_no_contract_case(model):
    in_a_process(MODULE, "compare_contract_cases", model, 1, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.slow
def test_kernels_change_no_contract_case_with_frames():
    in_a_process(MODULE, "compare_contract_cases", "pet-layerwise", 1, TRITON_INTERPRET="1")


def compare_contract_cases(name, stride):
    """Energies, forces and stress of structures, with and without the kernels."""
    from contracts.models import GENTLE

    framed = (
        lambda: random_pet(3, input_encoding="radial", ecse="layerwise", frames=GENTLE),
        {CUTOFF_ATTENTION, FUSED_LINEAR, LOCAL_FRAMES},
    )
    make, expected = (MODELS | {"pet-layerwise": framed})[name]
    model = make().requires_grad_(False)
    used: set[str] = set()
    for structure, build in list(STRUCTURES.items())[::stride]:
        system = build()
        edges = neighbor_list(system, model.cutoff)
        with using_kernels("triton") as selection:
            found = evaluate(model, system, edges)
        reference = evaluate(model, system, edges)
        assert disagreement(found, reference, TOLERANCES["float64"]) is None, structure
        gap = (found.stress - reference.stress).abs().nan_to_num().max()
        assert gap < 1e-9, structure
        used |= set(selection.used)
    assert used == expected, used


@pytest.mark.slow
# both from inside torch.compile
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_transformers_change_no_contract_case():
    from pet_calc.io.models.weights import copy_model
    from pet_calc.models.pet.compiled import compile_regions

    for dtype, precision in ((torch.float64, "float64"), (torch.float32, "highest")):
        model = compile_regions(copy_model(random_pet(1), dtype))
        for structure, build in STRUCTURES.items():
            system = build()
            edges = neighbor_list(system, model.cutoff)
            found = evaluate(model, system, edges)
            with reference_only():
                reference = evaluate(model, system, edges)
            assert disagreement(found, reference, TOLERANCES[precision]) is None, structure
        torch._dynamo.reset()
