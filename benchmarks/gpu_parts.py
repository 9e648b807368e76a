"""What `gpu.py` measures: each part yields its measurements one after the other.

A row with a "bar" counts for that bar of `gpu.py`. On a GPU times are those of CUDA events or,
where the host takes part, of the clock with the device waited for; medians over as many repeats as
a fraction of a second allows. The network is metatrain's default (d = 128, two layers of two,
cutoff 4.5 Å) with random weights.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes
from pet_step import published_forward
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pet_calc import PETCalculator
from pet_calc.calculators.fixed_step import FixedStep
from pet_calc.geometry import System, node_edge_layout
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.kernels.cutoff_attention import cutoff_attention
from pet_calc.kernels.edge_embedding import Encoding, edge_embedding
from pet_calc.kernels.fused_linear import fused_linear
from pet_calc.kernels.operation import Form, Selection, using_kernels
from pet_calc.kernels.precision import Precision, matmul_precision
from pet_calc.models import evaluate
from pet_calc.models.pet import PET, PETConfig
from pet_calc.models.pet.fixed_shape import layout_of, seen_slots
from pet_calc.models.pet.tokens import views_of_atoms
from pet_calc.neighbors import neighbor_list
from pet_calc.workflows.water_box import water_box

Row = dict[str, Any]

#: Steps between two lists of a skin of 1 Å: hydrogen at 300 K, at five times its mean speed, moves
#: by half of that in so many steps of 0.5 fs.
STEPS_PER_LIST = 12


@dataclass(frozen=True)
class Setting:
    """Where to measure.

    Attributes
    ----------
    device : torch.device
    tiny : bool
        Measure a few atoms, without Triton.
    memory : float
        Share of the device's memory to use.
    """

    device: torch.device
    tiny: bool
    memory: float

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    @property
    def no_triton(self) -> str:
        """Why Triton's kernels cannot be measured; empty if they can."""
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
        return "" if self.cuda else f"Triton's kernels run on CUDA devices, not on {self.device}"

    @property
    def kernels(self) -> list[str]:
        """Ways to compute: with torch alone, and with Triton."""
        return ["torch"] if self.no_triton else ["torch", "triton"]


@dataclass(frozen=True)
class Part:
    """A part of the measurements and the seconds that it may take."""

    measure: Callable[[Setting], Iterator[Row]]
    seconds: float


#: What the package calls the ways to compute.
FORMS: dict[str, Form] = {"torch": "reference", "triton": "triton"}


def kernels(way: str) -> AbstractContextManager[Selection]:
    """Within the block the package uses torch alone, or Triton's kernels where they run."""
    return using_kernels(FORMS[way])


def wait(s: Setting) -> None:
    """Until the device has done everything."""
    if s.cuda:
        torch.cuda.synchronize(s.device)


def host_time(s: Setting, function: Callable[[], object], seconds: float = 0.6) -> float:
    """Median milliseconds of a call until the device has done it."""
    function()
    times: list[float] = []
    end = time.perf_counter() + (0.05 if s.tiny else seconds)
    while len(times) < (2 if s.tiny else 5) or (time.perf_counter() < end and len(times) < 200):
        wait(s)
        start = time.perf_counter()
        function()
        wait(s)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def device_time(s: Setting, function: Callable[[], object], seconds: float = 0.4) -> float:
    """Median milliseconds that a call takes the device."""
    if not s.cuda:
        return host_time(s, function, seconds)
    function()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 200):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        function()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last))
    return statistics.median(times)


def network(s: Setting, dtype: torch.dtype = torch.float32, **options: Any) -> PET:
    """The default network with random weights and forces of some eV/Å."""
    small: dict[str, Any] = {
        "d_pet": 16, "d_node": 16, "d_head": 16, "d_feedforward": 16, "num_heads": 2,
        "cutoff": 3.0,
    }  # fmt: skip
    config = PETConfig(elements=(1, 8, 14), **((small if s.tiny else {}) | options))
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PET(config, dtype=torch.float64).requires_grad_(False)
    for p in model.parameters():
        scale = p.shape[-1] ** -0.5
        p.add_(scale * (torch.rand(p.shape, generator=generator, dtype=p.dtype) - 0.5))
    return model.to(dtype).to(s.device)


def water(s: Setting, n_atoms: int) -> Atoms:
    """A box of 192 atoms, repeated; 24 atoms if tiny."""
    atoms = water_box(8 if s.tiny else 64, seed=0)
    if s.tiny:
        return atoms
    times = {192: (1, 1, 1), 3072: (4, 2, 2), 12288: (4, 4, 4)}[n_atoms]
    atoms = atoms.repeat(times)
    atoms.rattle(0.01, seed=0)
    return atoms


def silicon(s: Setting, n_atoms: int) -> Atoms:
    """A crystal of 64, 648 or 1,728 atoms, rattled; of 8 if tiny."""
    times = {64: (2, 2, 2), 648: (3, 3, 9), 1728: (6, 6, 6)}[n_atoms]
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat((1, 1, 1) if s.tiny else times)
    atoms.rattle(0.05, seed=0)
    return atoms


def moved(atoms: Atoms, n: int = 8) -> list[Atoms]:
    """Structures slightly apart, within the skin of one list."""
    generator = np.random.default_rng(0)
    copies = []
    for _ in range(n):
        copy = atoms.copy()
        copy.positions += 1e-3 * generator.standard_normal(copy.positions.shape)
        copies.append(copy)
    return copies


def in_turn(function: Callable[[Any], object], values: list[Any]) -> Callable[[], object]:
    """The function of one value after the other."""
    state = iter(range(10**9))
    return lambda: function(values[next(state) % len(values)])


def network_replay(step: FixedStep) -> Callable[[], object]:
    """The network part of a prepared step alone: the graph, or on a CPU the function."""
    prepared = step._prepared
    assert prepared is not None
    return prepared.packed if prepared._captured is None else prepared._captured[0].replay


def prepared_step(s: Setting, model: PET, atoms: Atoms, way: str) -> tuple[FixedStep, list[System]]:
    """A step that has been made once by some kernels, and structures for more of them."""
    systems = [system_from_atoms(a, "cpu") for a in moved(atoms)]
    step = FixedStep(s.device, 1.0, FORMS[way])
    step(model, systems[0])
    require_used(step)
    return step, systems


def require_used(step: FixedStep) -> None:
    """Raise if the package has fallen back to ordinary evaluations."""
    if step.problem is not None:
        raise RuntimeError(f"steps in fixed shapes disagree: {step.problem}")


# --- the parts ------------------------------------------------------------------------------------


def accuracy(s: Setting) -> Iterator[Row]:
    """Steps in fixed shapes against float64 on the host, in all ways and precisions."""
    atoms = water(s, 192)
    system = system_from_atoms(atoms, "cpu")
    here = Setting(torch.device("cpu"), s.tiny, s.memory)
    exact = network(here, torch.float64)
    expected = evaluate(exact, system, neighbor_list(system, exact.cutoff))
    assert expected.forces is not None
    size = float(expected.forces.abs().max())
    # in Triton's kernels products of float32 are three of TensorFloat-32
    bars = {"torch": "8e", "triton": "8f"}
    plans = [("float64", "highest", "torch")]
    plans += [("float32", "highest", k) for k in s.kernels]
    plans += [("float32", "high", k) for k in s.kernels] if s.cuda else []
    plans += [] if s.no_triton else [("float32", "fast", "triton")]
    for dtype, precision, way in plans:
        model = network(s, getattr(torch, dtype))
        with matmul_precision(precision):  # type: ignore[arg-type]
            step = FixedStep(s.device, 1.0, FORMS[way])
            found = step(model, system)
        require_used(step)
        assert found.forces is not None
        force = float((found.forces - expected.forces).abs().max()) / size
        energy = float((found.energy - expected.energy).abs()) / len(atoms)
        if dtype == "float64" and not (force < 1e-10 and energy < 1e-10):
            raise RuntimeError(f"a step in float64 must be exact, but deviates by {force:.1e}")
        row = {"contestant": way, "dtype": dtype, "precision": precision, "n_atoms": len(atoms)}
        counts = (dtype, precision) == ("float32", "highest")
        yield row | {
            "quantity": "force error relative to the largest", "value": force,
            "energy_error_per_atom": energy, "largest_force": size,
        } | ({"bar": bars[way]} if counts else {})  # fmt: skip
    if s.no_triton:
        yield {"skipped": f"triton: {s.no_triton}"}


def attention(s: Setting) -> Iterator[Row]:
    """Forward and backward pass of the attention on 48 tokens of each atom."""
    n, t, heads, d = (6, 16, 2, 16) if s.tiny else (12288, 48, 8, 128)
    g = torch.Generator().manual_seed(0)
    packed = torch.randn(n, t, 3 * d, generator=g).to(s.device).requires_grad_()
    log_weight = torch.rand(n, t, generator=g).log().to(s.device).requires_grad_()
    grad = torch.randn(n, t, d, generator=g).to(s.device)
    scale = (d // heads) ** -0.5

    def both(function: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(), (packed, log_weight), grad)

    def masked() -> Tensor:
        q, k, v = packed.view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4).unbind(0)
        mask = log_weight[:, None, None, :].expand(n, heads, t, t).contiguous()
        backend = SDPBackend.EFFICIENT_ATTENTION if s.cuda else SDPBackend.MATH
        with sdpa_kernel(backend):
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
        return out.transpose(1, 2).reshape(n, t, d)

    def in_triton(precision: Precision) -> Tensor:
        with matmul_precision(precision):
            return cutoff_attention.by("triton", packed, log_weight, heads, scale)

    contestants: dict[str, Callable[[], Tensor]] = {
        "sdpa with a mask": masked,
        "torch": lambda: cutoff_attention.by("reference", packed, log_weight, heads, scale),
    }
    precisions: tuple[Precision, ...] = ("highest", "high", "fast")
    for precision in precisions if not s.no_triton else ():
        contestants[f"triton, {precision}"] = partial(in_triton, precision)
    matrix = n * heads * t * t * packed.element_size()
    times: dict[str, float] = {}
    for name, function in contestants.items():
        common = {"contestant": name, "n_atoms": n, "tokens": t, "heads": heads, "d": d}
        try:
            run = both(function)
            times[name] = device_time(s, run)
        except RuntimeError as error:
            yield common | {"quantity": "ms", "error": str(error).splitlines()[0]}
            continue
        yield common | {"quantity": "ms", "value": times[name]}
        if not name.startswith("triton"):
            continue
        if "sdpa with a mask" in times:
            faster = times["sdpa with a mask"] / times[name]
            bar = {"bar": "12a"} if name == "triton, highest" else {}
            yield common | {"quantity": "times faster than sdpa", "value": faster} | bar
        wait(s)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        wait(s)
        # out, and the two gradients
        own = (packed.numel() // 3 + packed.numel() + log_weight.numel()) * packed.element_size()
        beyond = max(0, torch.cuda.max_memory_allocated() - before - own)
        share = {"quantity": "memory beyond its tensors, in attention matrices"}
        bar = {"bar": "12b"} if name == "triton, highest" else {}
        yield common | share | {"value": beyond / matrix} | bar
    if s.no_triton:
        yield {"skipped": f"triton: {s.no_triton}"}


def embedding(s: Setting) -> Iterator[Row]:
    """Forward and backward pass of the edge embedding."""
    n, d, radial = (50, 16, 8) if s.tiny else (480_000, 128, 48)
    g = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(n, 3, generator=g) * 2.0,
        torch.rand(n, generator=g) > 0.1,
        torch.randint(3, (n,), generator=g),
        torch.full((n,), 4.5),
        torch.linspace(0.0, 4.5, radial),
        torch.randn(3, d, generator=g),
        torch.randn(7 + radial, d, generator=g),
    ]
    tensors = [x.to(s.device) for x in tensors]
    vectors = tensors[0].requires_grad_()
    grad = torch.randn(n, d, generator=g).to(s.device)
    encoding = Encoding(True, 4.5 / radial, 0.5, True)
    for way in s.kernels:

        def run(way: str = way) -> object:
            hidden, weight = edge_embedding.by(FORMS[way], *tensors, encoding)
            return torch.autograd.grad((hidden, weight), vectors, (grad, grad[:, 0]))

        common = {"contestant": way, "n_edges": n, "d": d, "n_radial": radial}
        yield common | {"quantity": "ms", "value": device_time(s, run)}
    if s.no_triton:
        yield {"skipped": f"triton: {s.no_triton}"}


def linear(s: Setting) -> Iterator[Row]:
    """Forward and backward pass of the linear maps of a layer, norms and gates included."""
    n, d = (50, 16) if s.tiny else (480_000, 128)
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(n, 2 * d, generator=g).to(s.device)
    forms: dict[str, tuple[int, int, bool, dict[str, Any]]] = {
        "attention, in": (d, 3 * d, False, {"prologue": "rms"}),
        "attention, out": (d, d, False, {}),
        "gate": (d, 2 * d, False, {"prologue": "rms", "gated": True}),
        "after the gate": (2 * d, d, True, {}),
        "compression": (d, d, False, {"prologue": "silu"}),
    }
    ways: list[tuple[str, Any]] = [("torch", p) for p in ("highest", "high")]
    if not s.no_triton:
        ways += [("triton", p) for p in ("highest", "high", "fast")]
    for name, (k, m, added, form) in forms.items():
        x = tokens[:, :k].contiguous().requires_grad_()
        rows = 2 * m if form.get("gated") else m
        weight = torch.randn(rows, k, generator=g).to(s.device) * k**-0.5
        bias = torch.randn(rows, generator=g).to(s.device)
        residual = torch.randn(n, m, generator=g).to(s.device) if added else None
        grad = torch.randn(n, m, generator=g).to(s.device)
        for way, precision in ways if s.cuda else ways[:1]:

            def run(
                x: Tensor = x, others: Any = (weight, bias, residual), grad: Tensor = grad,
                form: Any = form, way: str = way,
            ) -> object:  # fmt: skip
                y = fused_linear.by(FORMS[way], x, *others, **form)
                return torch.autograd.grad(y, x, grad)

            with matmul_precision(precision):
                value = device_time(s, run, 0.2)
            yield {
                "contestant": f"{way}, {precision}", "quantity": "ms", "value": value, "form": name,
                "n_tokens": n, "d": d, "tflops": 4e-9 * n * rows * k / value,
            }  # fmt: skip
    if s.no_triton:
        yield {"skipped": f"triton: {s.no_triton}"}


def saturated(s: Setting) -> Iterator[Row]:
    """Steps of 12,288 atoms of water, in µs per atom."""
    atoms = water(s, 12288)
    model = network(s)
    system = system_from_atoms(atoms, "cpu")
    edges = neighbor_list(system, model.cutoff)
    layout = node_edge_layout(edges, system.n_atoms)
    flops = 2 * published_forward(model.config, layout, edges.n_edges)
    d = model.config.d_pet
    a = torch.randn(len(layout.slot_edge), d, device=s.device)
    b = torch.randn(d, 4 * d, device=s.device)
    common: Row = {"n_atoms": len(atoms), "n_edges": edges.n_edges, "d": d}
    ways = {"highest": s.kernels}
    if s.cuda:
        ways |= {"high": s.kernels, "fast": [k for k in s.kernels if k == "triton"]}
    # in Triton's kernels products of float32 are three of TensorFloat-32
    bars = {"highest": {"torch": "8a", "triton": "8b"}, "high": dict.fromkeys(s.kernels, "8c")}
    bars |= {"fast": {"triton": "8d"}}
    for precision, named in ways.items():
        with matmul_precision(precision):  # type: ignore[arg-type]
            if precision == "fast":
                a, b = a.bfloat16(), b.bfloat16()
            rate = 2 * a.numel() * 4 * d / device_time(s, lambda: a @ b) / 1e3  # noqa: B023
            floor = flops / rate / len(atoms)
            more = common | {"precision": precision, "dtype": "float32"}
            yield more | {"contestant": "products alone", "quantity": "µs per atom", "value": floor}
            for way in named:
                with kernels(way):
                    step, systems = prepared_step(s, model, atoms, way)
                    value = 1e3 * device_time(s, network_replay(step), 0.8) / len(atoms)
                    yield more | {
                        "contestant": f"graph, {way}", "quantity": "µs per atom", "value": value,
                        "times_products": value / floor,
                        "bar": bars[precision][way],
                    }  # fmt: skip
                    whole = 1e3 * host_time(s, in_turn(lambda x: step(model, x), systems), 0.8)  # noqa: B023
                    name = {"contestant": f"graph, {way}, with copies"}
                    yield more | name | {"quantity": "µs per atom", "value": whole / len(atoms)}
                    del step
                    there, list_there = (
                        system.to(s.device),
                        neighbor_list(system.to(s.device), model.cutoff),
                    )
                    eager = host_time(s, lambda: evaluate(model, there, list_there), 0.8)  # noqa: B023
                    name = {"contestant": f"eager, {way}"}
                    value = 1e3 * eager / len(atoms)
                    yield more | name | {"quantity": "µs per atom", "value": value}
    if s.no_triton:
        yield {"skipped": f"triton: {s.no_triton}"}


def small(s: Setting) -> Iterator[Row]:
    """Steps of 192 atoms of water: what launches cost."""
    atoms = water(s, 192)
    model = network(s)
    common: Row = {"n_atoms": len(atoms), "dtype": "float32", "precision": "highest"}
    for way in s.kernels:
        with kernels(way):
            step, systems = prepared_step(s, model, atoms, way)
            replay = device_time(s, network_replay(step))
            whole = host_time(s, in_turn(lambda x: step(model, x), systems))  # noqa: B023
            there = [x.to(s.device) for x in systems]
            edges = neighbor_list(there[0], model.cutoff)
            eager = host_time(s, in_turn(lambda x: evaluate(model, x, edges), there))  # noqa: B023
            for name, value in (("graph alone", replay), ("graph", whole), ("eager", eager)):
                bar = {"bar": "9a"} if name == "graph" else {}
                yield common | {"contestant": f"{name}, {way}", "quantity": "ms per step",
                                "value": value} | bar  # fmt: skip
            yield common | {"contestant": f"graph, {way}", "quantity": "times faster than eager",
                            "value": eager / whole, "bar": "9b"}  # fmt: skip
            structures = moved(atoms)
            for graph in (True, False):
                calculator = PETCalculator(model, cuda_graph=graph, device=str(s.device))

                def through_ase(x: Atoms, calculator: PETCalculator = calculator) -> None:
                    calculator.calculate(x, ["energy", "forces", "stress"], all_changes)

                value = host_time(s, in_turn(through_ase, structures))
                name = f"ASE calculator, {'graph' if graph else 'eager'}, {way}"
                yield common | {"contestant": name, "quantity": "ms per step", "value": value}
            if s.cuda:
                yield common | {
                    "contestant": f"graph, {way}", "quantity": "waits of the host",
                    "value": float(waits(step)), "bar": "10b",
                }  # fmt: skip


def waits(step: FixedStep) -> int:
    """Whether the host waits within a step, between the copies of positions and results."""
    prepared = step._prepared
    assert prepared is not None
    assert prepared._captured is not None
    graph, output, values = prepared._captured
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        prepared.system.positions.copy_(prepared.host.positions, non_blocking=True)
        graph.replay()
        values.copy_(output, non_blocking=True)
    except RuntimeError:
        return 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    return 0


def lists(s: Setting) -> Iterator[Row]:
    """Neighbor lists and what is made of them, beside a step."""
    shares: dict[str, float] = {}
    for n_atoms in (64, 192, 648, 1728, 12288):
        atoms = silicon(s, n_atoms) if n_atoms in (64, 648, 1728) else water(s, n_atoms)
        model = network(s)
        for way in s.kernels:
            with kernels(way):
                step, _ = prepared_step(s, model, atoms, way)
                prepared = step._prepared
                assert prepared is not None
                whole = device_time(s, network_replay(step), 0.3)
                renewed = host_time(s, lambda: step._renew(), 0.3)  # noqa: B023
                before = host_time(s, lambda: preparation(prepared), 0.3)  # noqa: B023
                inside = device_time(s, captured(s, lambda: preparation(prepared)), 0.2)  # noqa: B023
            share = (renewed / STEPS_PER_LIST + inside) / whole
            shares[way] = max(shares.get(way, 0.0), share)
            yield {
                "contestant": way, "n_atoms": len(atoms), "quantity": "share of a step",
                "value": share, "list_ms": renewed, "preparation_ms": inside,
                "preparation_eager_ms": before, "step_ms": whole,
                "steps_per_list": STEPS_PER_LIST,
            }  # fmt: skip
    for way, share in shares.items():
        yield {"contestant": way, "quantity": "largest share", "value": share, "bar": "10a"}


def preparation(prepared: Any) -> object:
    """What a step does before its network: vectors, distances, buckets."""
    model, graph = prepared.model, prepared.graph
    with torch.no_grad():
        exact = graph.vectors(prepared.system)
        inside = graph.occupied & (exact.square().sum(-1) < model.cutoff**2)
        vectors = exact.masked_fill(~inside[:, None], 2.0 * model.cutoff).to(model.dtype)
        _, keep = seen_slots(model, graph, vectors, inside)
        return layout_of(graph, keep, prepared.plan)


def captured(s: Setting, function: Callable[[], object]) -> Callable[[], object]:
    """The function as a CUDA graph; on a CPU itself."""
    if not s.cuda:
        return function
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        kept = function()
    return lambda: (graph.replay(), kept)


def frames(s: Setting) -> Iterator[Row]:
    """Layerwise local frames against the plain network."""
    plain, framed = network(s), network(s, ecse="layerwise")
    for n_atoms, bar in ((192, "11a"), (3072, "11b")):
        atoms = water(s, n_atoms)
        system = system_from_atoms(atoms, str(s.device))
        edges = neighbor_list(system, plain.cutoff)
        i, j = edges.edge_index
        vectors = system.positions[j] - system.positions[i]
        vectors = vectors + edges.cell_shifts.to(vectors.dtype) @ system.cell[0]
        config = framed.config
        views = views_of_atoms(edges, vectors, len(atoms), config.cutoff, config.frames, None)
        k = len(views.group) / len(atoms)
        for way in s.kernels:
            with kernels(way):
                a = host_time(s, lambda: evaluate(plain, system, edges))  # noqa: B023
                b = host_time(s, lambda: evaluate(framed, system, edges))  # noqa: B023
            value = b / a if bar == "11a" else b / a / (1.15 * k)
            yield {
                "contestant": way, "n_atoms": len(atoms), "dtype": "float32", "views": k,
                "quantity": "times plain" if bar == "11a" else "times plain per 1.15 views",
                "value": value, "plain_ms": a, "framed_ms": b, "bar": bar,
            }  # fmt: skip


def peers(s: Setting) -> Iterator[Row]:
    """ASE calculators of the same weights: metatrain's, pet-kokkos' and those in here."""
    if importlib.util.find_spec("metatrain") is None:
        yield {"skipped": "metatrain is not installed"}
        return
    from metatomic_ase import MetatomicCalculator
    from vs_metatrain import metatrain_model, require_agreement, write_kokkos

    from pet_calc.io.foreign.checkpoints import load_published

    model = metatrain_model([1, 8, 14], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PET_CALC_CACHE"] = folder
        checkpoint = Path(folder) / "random.ckpt"
        torch.save(model.get_checkpoint(), checkpoint)
        ours = load_published(checkpoint, torch.float32)
        device = str(s.device)
        found: dict[str, Any] = {
            "metatrain": MetatomicCalculator(model.export(), device=device),
            "eager, torch": PETCalculator(ours, device=device),
            "graph, torch": PETCalculator(ours, device=device, cuda_graph=True),
        }
        if not s.no_triton:
            found["graph, triton"] = PETCalculator(
                ours, device=device, cuda_graph=True, kernels="triton"
            )
        if importlib.util.find_spec("pet_kokkos") is not None:
            import pet_kokkos.ase

            stem = Path(folder) / "kokkos"
            write_kokkos(model, stem)
            found["pet-kokkos"] = pet_kokkos.ase.PETCalculator(str(stem))
        else:
            yield {"skipped": "pet-kokkos is not installed"}
        boxes = {"192": water(s, 192)} | {str(n): silicon(s, n) for n in (64, 648, 1728)}
        for size, atoms in boxes.items():
            times: dict[str, float] = {}
            reference: Any = None
            for name, calculator in found.items():
                common: Row = {"contestant": name, "n_atoms": len(atoms), "dtype": "float32"}
                structures = moved(atoms)

                def through_ase(x: Atoms, calculator: Any = calculator) -> None:
                    calculator.calculate(x, ["energy", "forces", "stress"], all_changes)

                try:
                    through_ase(atoms)
                    if name.startswith("graph"):
                        require_used(calculator._fixed)
                    results = calculator.results
                    pair = (results["energy"], np.array(results["forces"]))
                    if reference is None:
                        reference = pair
                    else:
                        require_agreement(name, pair, reference, len(atoms), "float32")
                    times[name] = host_time(s, in_turn(through_ase, structures))
                except Exception as error:
                    text = f"{type(error).__name__}: {error}".splitlines()[0]
                    yield common | {"quantity": "ms per step", "error": text}
                    continue
                yield common | {"quantity": "ms per step", "value": times[name]}
                if name.startswith("graph") and "metatrain" in times:
                    bar = "9c" if size == "192" else size
                    faster = times["metatrain"] / times[name]
                    yield common | {"quantity": "times faster", "value": faster, "bar": bar}


PARTS = {
    "accuracy": Part(accuracy, 70.0),
    "small": Part(small, 70.0),
    "saturated": Part(saturated, 120.0),
    "attention": Part(attention, 50.0),
    "embedding": Part(embedding, 40.0),
    "linear": Part(linear, 40.0),
    "lists": Part(lists, 80.0),
    "frames": Part(frames, 70.0),
    "peers": Part(peers, 110.0),
}
