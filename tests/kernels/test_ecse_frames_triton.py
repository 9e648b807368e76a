"""The Triton kernels of local frames against the reference; compiled ahead of time."""

import importlib.util
from unittest import mock

import pytest
import torch
from kernels.processes import in_a_process, resources

from pet_calc.kernels.ecse_frames import FrameConfig, pair_weights, reference
from pet_calc.kernels.operation import Operation, Selection, selecting, using_kernels

MODULE = "kernels.test_ecse_frames_triton"
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="the optional package triton is absent")

PUBLISHED = FrameConfig()
#: Every switch is half way somewhere.
SLOW = FrameConfig(
    beta=2.0, taper=0.7, collinearity=0.5, collinearity_width=0.4, num_prunings=2,
    pruning_threshold=0.5, pruning_width=0.6, hand_over=2.0, pruning_onset=2.0,
    pruning_onset_width=1.9,
)  # fmt: skip
OUTER = 3.0


def edges(counts, seed=0):
    """Atoms with so many neighbors each, as vectors and centers."""
    g = torch.Generator().manual_seed(seed)
    direction = torch.randn(sum(counts), 3, dtype=torch.float64, generator=g)
    direction = direction / direction.norm(dim=1, keepdim=True)
    length = 0.9 + 2.6 * torch.rand(sum(counts), 1, dtype=torch.float64, generator=g)
    atom = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return (direction * length).requires_grad_(), atom


def weights_of(kernel, config, counts=(5, 0, 1, 19, 2)):
    vectors, atom = edges(counts)

    def run():
        r = vectors.square().sum(-1).sqrt()
        a, b, weight, inner = kernel(r, vectors / r[:, None], atom, len(counts), OUTER, config)
        # what underflows may be in the list or not
        keep = weight.detach() > 1e-200
        return weight[keep], inner, torch.stack([a[keep], b[keep]])

    return derivatives(run, [vectors])


def pruned_of(kernel, config, counts=(3, 0, 1, 21, 2), scale=4.0):
    g = torch.Generator().manual_seed(1)
    weight = (scale * torch.rand(sum(counts), dtype=torch.float64, generator=g)).requires_grad_()
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return derivatives(lambda: kernel(weight, group, len(counts), config), [weight])


def views_of(*, unit, dtype=torch.float64, d=6):
    """Arguments of the embedding: three atoms, seven views of all kinds, a slot of padding."""
    g = torch.Generator().manual_seed(2)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    width = 18
    vectors = torch.cat([random(3 * width - 1, 3), torch.zeros(1, 3).double()])
    slot_edge = torch.arange(3 * width).view(3, width)
    row = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    kind = torch.tensor([0, 0, 0, 1, 1, 2, 0])
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    tensors = {
        "base": random(3 * width, d).to(dtype),
        "projection": random(6 if unit else 3, d).to(dtype),
        "vectors": vectors,
        "slot_edge": slot_edge,
        "row": row,
        "matrix": torch.linalg.qr(random(7, 3, 3))[0],
        "sign": sign,
        "kind": kind,
    }
    for name in ("base", "projection", "vectors", "matrix"):
        tensors[name].requires_grad_()
    return tensors


def embedding_of(kernel, names=("base", "projection", "vectors", "matrix"), **options):
    tensors = views_of(**options)
    for name in {"base", "projection", "vectors", "matrix"} - set(names):
        tensors[name].requires_grad_(False)
    # padding is masked later on, and its gradient goes nowhere
    real = (tensors["slot_edge"][tensors["row"]].reshape(-1) < 53)[:, None]

    def run():
        out = kernel(*tensors.values())
        return (torch.where(real, out, 0.0),)

    return derivatives(run, [tensors[n] for n in names], second=len(names) == 4)


def average_of(kernel):
    g = torch.Generator().manual_seed(3)
    values = torch.randn(5, 300, dtype=torch.float64, generator=g).requires_grad_()
    weight = torch.rand(5, 1, dtype=torch.float64, generator=g).requires_grad_()
    row = torch.tensor([0, 0, 2, 2, 2])
    return derivatives(lambda: (kernel(values, row, weight, 3),), [values, weight])


def derivatives(run, inputs, second=True):
    """Values, gradients, and gradients of a function of the gradients."""

    def scalar(results):
        return sum((x.sin() * (1.3 + k)).sum() for k, x in enumerate(results) if x.requires_grad)

    values = run()
    plain = torch.autograd.grad(scalar(values), inputs)
    found = [v.detach().double() for v in values] + list(plain)
    if second:
        first = torch.autograd.grad(scalar(run()), inputs, create_graph=True)
        found += [g.detach() for g in first]
        found += torch.autograd.grad(scalar(first), inputs)
    return found


def deviation(found, expected):
    """Largest deviation of each tensor relative to its largest element, the largest of these."""
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        if y.numel():
            worst = max(worst, float((x - y).abs().max() / y.abs().max().clamp_min(1.0)))
    return worst


@needs_triton
@pytest.mark.parametrize("operation", ["weights", "pruning", "embedding", "average"])
def test_kernels_are_the_reference(operation):
    in_a_process(MODULE, "compare", operation, TRITON_INTERPRET="1")


def compare(operation):
    from pet_calc.kernels.ecse_frames import triton_pruning, triton_views, triton_weights

    def same(made, mine, theirs, *arguments, tolerance=1e-12, **options):
        found = made(mine, *arguments, **options)
        expected = made(theirs, *arguments, **options)
        assert deviation(found, expected) < tolerance, (arguments, deviation(found, expected))
        # control: a deviation of 1e-9 in any of them is seen
        for k, x in enumerate(found):
            spoilt = [*found[:k], x * (1 + 1e-9) + 1e-9, *found[k + 1 :]]
            assert deviation(spoilt, expected) > 1e-10

    if operation == "weights":
        for config in (PUBLISHED, SLOW):
            same(
                weights_of, triton_weights.pair_weights, reference.pair_weights, config,
                tolerance=1e-10,
            )  # fmt: skip
    elif operation == "pruning":
        for config in (PUBLISHED, SLOW):
            for scale in (4.0, 0.4):
                kernels = triton_pruning.pruned_weights, reference.pruned_weights
                same(pruned_of, *kernels, config, scale=scale, tolerance=1e-10)
    elif operation == "embedding":
        kernels = triton_views.framed_embedding, reference.framed_embedding
        for unit in (True, False):
            same(embedding_of, *kernels, unit=unit)
            # as in dynamics, where the linear map is a constant
            same(embedding_of, *kernels, ("base", "vectors", "matrix"), unit=unit)
        single = embedding_of(kernels[0], ("base", "vectors"), unit=True, dtype=torch.float32)
        double = embedding_of(kernels[1], ("base", "vectors"), unit=True)
        assert 0 < deviation([x.double() for x in single], double) < 1e-5
    else:
        same(average_of, triton_views.view_average, reference.view_average)


@needs_triton
def test_kernels_compile_for_hopper():
    in_a_process(MODULE, "compile_for_hopper", TRITON_INTERPRET="0")


#: Most registers a thread may need, and bytes of them that may be spilled.
REGISTERS, SPILLED = 255, 0


def compile_for_hopper():
    """Constants keep all their digits, nothing is spilled, at d = 128."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pet_calc.kernels.ecse_frames import triton_pruning, triton_views, triton_weights

    pairs = triton_weights.weight_constants(OUTER, PUBLISHED)
    prune = triton_pruning.pruning_constants(PUBLISHED, 512)
    views = triton_views.constants(128, unit=True)
    real, whole = "*fp64", "*i64"
    plans = [
        (triton_weights.weights_kernel, pairs),
        (triton_weights.weights_backward_kernel, pairs),
        (triton_pruning.pruning_kernel, prune),
        (triton_pruning.pruning_backward_kernel, prune),
        (triton_views.embedding_kernel, views),
        (triton_views.slots_backward_kernel, views),
        (triton_views.frames_backward_kernel, views),
        (triton_views.average_kernel, {"C": 256}),
        (triton_views.average_backward_kernel, {"C": 256}),
    ]
    integers = {"first_edge", "first_pair", "first", "slot_edge", "row", "first_view", "kind"}
    singles = {"base", "projection", "out", "grad", "d_base", "values", "d_values"}
    scalars = {"n_pairs", "width", "last", "n"}
    for kernel, how in plans:
        constants = dict(how)
        options = {"num_warps": constants.pop("num_warps", 4)}
        of_views = kernel.fn.__module__.endswith("views")
        single = singles | ({"weight", "d_weight"} if "average" in kernel.fn.__name__ else set())
        signature = {}
        for name in kernel.arg_names:
            if name in constants:
                signature[name] = "constexpr"
            elif name in scalars:
                signature[name] = "i32"
            elif name in integers:
                signature[name] = whole
            else:
                signature[name] = "*fp32" if of_views and name in single else real
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        target = GPUTarget("cuda", 90, 32)
        compiled = compiler.compile(source, target=target, options=options)
        assert "sm_90" in compiled.asm["ptx"]
        if not of_views:
            assert "f32" not in compiled.asm["ttir"], "a constant has lost half its digits"
        registers, stack = resources(compiled)
        print(kernel.fn.__name__, "registers", registers, "stack", stack)
        assert stack <= SPILLED, f"{kernel.fn.__name__}: {stack} bytes of registers spilled"
        assert registers <= REGISTERS


@needs_triton
def test_a_model_in_local_frames_runs_on_the_kernels():
    in_a_process(MODULE, "compare_models", TRITON_INTERPRET="1")


def compare_models():
    from contracts.models import random_pet
    from contracts.structures import molecule

    from pet_calc.kernels.ecse_frames import FrameConfig
    from pet_calc.models import evaluate
    from pet_calc.neighbors import neighbor_list

    model = random_pet(3, input_encoding="radial", ecse="layerwise", frames=FrameConfig())
    structure = molecule()
    edges = neighbor_list(structure, model.cutoff)
    expected = evaluate(model, structure, edges)
    selection = Selection("triton", allowed=frozenset({pair_weights.name}))
    used = []

    def applies(operation, *arguments):
        used.append(original(operation, *arguments))
        return used[-1]

    original = Operation.applies
    with mock.patch.object(Operation, "applies", applies), selecting(selection):
        found = evaluate(model, structure, edges)
    assert selection.used == {pair_weights.name: "highest"}
    assert sum(used) >= 2 + 1 + 3 * model.config.num_gnn_layers
    assert abs(found.energy - expected.energy).item() < 1e-11
    assert (found.forces - expected.forces).abs().max() < 1e-9


@pytest.mark.gpu
@needs_triton
def test_kernels_on_the_gpu():
    """Views of a random box through the kernels and through torch."""
    from contracts.models import random_pet
    from contracts.structures import water_box

    from pet_calc.models import evaluate
    from pet_calc.neighbors import neighbor_list

    model = random_pet(3, input_encoding="radial", ecse="layerwise").cuda()
    structure = water_box().to("cuda")
    edges = neighbor_list(structure, model.cutoff)
    expected = evaluate(model, structure, edges)
    with using_kernels("triton"):
        found = evaluate(model, structure, edges)
    assert abs(found.energy - expected.energy).item() < 1e-9
    assert (found.forces - expected.forces).abs().max() < 1e-7
