"""Steps of molecular dynamics in fixed shapes: on a GPU one CUDA graph, replayed at every step.

Launching some hundred small kernels costs a GPU milliseconds, whatever the number of atoms; a
graph that was captured once costs one launch. It repeats the same kernels on the same memory, so
that shapes must not change: the neighbor list, with its skin, and the network have as many slots
per atom as the structure needed when it was prepared, and some more.

What may have gone wrong is read together with the results of a step, in the one copy to the host
that it needs anyway: atoms that have moved by more than half of the skin, and atoms with more
neighbors than slots. Such a step is made again, with a new list or more slots, before anything is
returned. A list that will not last another step is renewed before that step.

The first step of a structure is compared with an ordinary evaluation. If they differ by more than
rounding explains, the ordinary results are returned, and a warning goes to the logger ``pet_calc``.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from pet_calc.calculators.validation import require_finite
from pet_calc.calculators.verification import disagreement, tolerance
from pet_calc.errors import SimulationError
from pet_calc.geometry import System
from pet_calc.io.structures.separation import OVERLAP, require_separation
from pet_calc.kernels.neighbor_matrix import MOST_SLOTS, matrix_operation
from pet_calc.kernels.operation import Kernels, reference_only, require_kernels, using_kernels
from pet_calc.kernels.precision import current_precision
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.models.pet import PET
from pet_calc.models.pet.fixed_shape import (
    BucketPlan,
    SlotGraph,
    evaluate_fixed,
    neighbor_counts,
    require_fixed_shape,
    with_room,
)
from pet_calc.neighbors import neighbor_list, neighbor_matrix
from pet_calc.neighbors.rows import matrix_from_edges

_log = logging.getLogger("pet_calc")

#: Slots of an atom that the device builds a list with first.
FIRST_SLOTS: Final = 64
#: Atoms up to which all pairs are tested on a GPU without the kernels for neighbor lists.
ALL_PAIRS: Final = 600
#: A list is renewed if this many further displacements like the last would exhaust its skin.
FORESIGHT: Final = 1.5
# runs before a capture, in which libraries choose their algorithms and reserve memory
_WARM_UP: Final = 3


@dataclass(frozen=True, eq=False)
class Findings:
    """What the host reads after a step; all tensors are its own.

    Attributes
    ----------
    results : Results
    lacking : int
        Slots of the network that an atom needs beyond those it has.
    closest : float
        Shortest distance in Å.
    moved : float
        Largest displacement in Å since the list was built.
    """

    results: Results
    lacking: int
    closest: float
    moved: float


class PreparedStep:
    """One structure's step with memory of its own: captured on a GPU, called on a CPU.

    Parameters
    ----------
    model : PET
    system : System
        On the host.
    graph : SlotGraph
        On the device; becomes the memory of all later lists.
    plan : BucketPlan
        Slots in the network.
    """

    def __init__(self, model: PET, system: System, graph: SlotGraph, plan: BucketPlan) -> None:
        device = graph.occupied.device
        self.model, self.plan = model, plan
        self.host = system.detached_copy()
        if device.type == "cuda":  # from where copies do not wait
            self.host = replace(self.host, positions=self.host.positions.pin_memory())
        self.system = self.host.to(device).detached_copy()
        self.graph = graph
        self.built_at = self.system.positions.clone()
        self.species = model.species(self.system.numbers)
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None = None
        if device.type == "cuda":
            self._captured = self._capture(device)

    def fits(self, model: PET, system: System) -> bool:
        """Whether it computes this model and structure, wherever its atoms are.

        Elements, cell, charge and spin may change as well.

        A change of periodicity or of the number of atoms needs other memory.
        """
        mine, theirs = self.host, system
        return (
            self.model is model
            and mine.n_atoms == theirs.n_atoms
            and torch.equal(mine.pbc, theirs.pbc)
        )

    def packed(self) -> Tensor:
        """The step: everything that the host wants to know, in one tensor of float64."""
        found = evaluate_fixed(self.model, self.system, self.species, self.graph, self.plan)
        r = found.results
        assert r.forces is not None
        assert r.stress is not None
        moved2 = (self.system.positions - self.built_at).square().sum(-1).amax()
        numbers = torch.stack([found.lacking.to(torch.float64), found.closest2, moved2])
        return torch.cat([numbers, r.energy, r.stress[0], r.energies, r.forces.reshape(-1)])

    def set_list(self, graph: SlotGraph) -> None:
        """Use a list that was built for the positions and the cell of the system now."""
        self.graph.copy_(graph)
        self.built_at.copy_(self.system.positions)

    def move(self, system: System) -> None:
        """Write a structure on the host into the memory of the step."""
        # the buffers are those of the host copy, pinned where there is a GPU
        self.host.positions.copy_(system.positions)
        self.system.positions.copy_(self.host.positions, non_blocking=True)
        for name in ("cell", "charge", "spin_multiplicity"):
            mine, theirs = getattr(self.host, name), getattr(system, name)
            if not torch.equal(mine, theirs):
                mine.copy_(theirs)
                getattr(self.system, name).copy_(mine)
        if not torch.equal(self.host.numbers, system.numbers):
            self.host.numbers.copy_(system.numbers)
            self.system.numbers.copy_(self.host.numbers)
            self.species.copy_(self.model.species(self.system.numbers))

    def run(self) -> Findings:
        """Make the step; the host waits for its results, and for nothing else."""
        if self._captured is None:
            values = self.packed()
        else:
            graph, output, values = self._captured
            with torch.cuda.device(output.device):
                graph.replay()
                values.copy_(output, non_blocking=True)
                torch.cuda.current_stream().synchronize()
        n = self.host.n_atoms
        numbers, energy, stress, energies, forces = values.clone().split([3, 1, 6, n, 3 * n])
        lacking, closest2, moved2 = numbers.tolist()
        return Findings(
            Results(energy, energies, forces.view(n, 3), stress[None]),
            lacking=int(lacking),
            closest=math.sqrt(closest2),
            moved=math.sqrt(moved2),
        )

    def _capture(self, device: torch.device) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """The graph, its output, and the memory of the host for it."""
        try:
            with torch.cuda.device(device):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self.packed()
                torch.cuda.current_stream().wait_stream(side)
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=side):
                    output = self.packed()
                return graph, output, torch.empty_like(output, device="cpu", pin_memory=True)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise SimulationError(
                f"a step must be capturable as a CUDA graph, but torch {torch.__version__} fails: "
                f"{str(error).splitlines()[0]}; leave out `cuda_graph`"
            ) from error


def on_host(results: Results) -> Results:
    """The same results in the memory of the host."""
    assert results.forces is not None
    assert results.stress is not None
    return Results(
        energy=results.energy.cpu(),
        energies=results.energies.cpu(),
        forces=results.forces.cpu(),
        stress=results.stress.cpu(),
    )


class FixedStep:
    """Energy, forces and stress of structures that follow each other, in fixed shapes.

    Parameters
    ----------
    device : torch.device
        A CUDA device, where steps are captured; or a CPU, where the same functions are called.
    skin : float
        Reach of the list beyond the cutoff in Å.
    kernels : {"auto", "reference", "triton"}
        See `pet_calc.kernels.operation.require_kernels`.

    Attributes
    ----------
    n_prepared, n_lists, n_steps : int
        How often memory was reserved (and captured), a list built, a step made.
    problem : str or None
        How a first step has differed from an ordinary evaluation; no more steps are to be made
        then.
    """

    def __init__(self, device: torch.device, skin: float, kernels: Kernels = "auto") -> None:
        self.device = device
        self.skin = skin
        self.kernels: Kernels = kernels
        self.n_prepared = self.n_lists = self.n_steps = 0
        self.problem: str | None = None
        self._prepared: PreparedStep | None = None
        self._moved = 0.0
        self._due = False

    def __call__(self, model: EnergyModel, system: System) -> Results:
        """Results on the host for a structure on the host, all of them finite.

        Raises
        ------
        ValueError
            For a model that has no fixed shape, see `require_fixed_shape`.
        InvalidStructureError
            For overlapping atoms.
        SimulationError
            If the model gives an energy or force that is not a finite number, or the step cannot
            be captured.
        """
        with using_kernels(require_kernels(self.kernels, self.device)):
            return self._step(model, system)

    def _step(self, model: EnergyModel, system: System) -> Results:
        """As `__call__`, by the kernels in force."""
        plain = require_fixed_shape(model)
        n_prepared = self.n_prepared
        here = self._prepared
        if here is None or not here.fits(plain, system):
            del here  # and with it the memory of another structure
            self._prepare(plain, system)
        else:
            changed = not torch.equal(here.host.cell, system.cell)
            here.move(system)
            del here
            if self._due or changed:
                self._renew()
        while True:
            found = self._run()
            if found.moved > 0.5 * self.skin:
                self._renew()
            elif found.lacking > 0:
                self._prepare(plain, system)
            else:
                break
        self._due = found.moved + FORESIGHT * max(0.0, found.moved - self._moved) > 0.5 * self.skin
        self._moved = found.moved
        if found.closest < OVERLAP:
            require_separation(system, neighbor_list(system, plain.cutoff))
        require_finite(found.results)
        if self.n_prepared > n_prepared:
            return self._compared(found.results, model, system)
        return found.results

    def _compared(self, found: Results, model: EnergyModel, system: System) -> Results:
        """The results of a first step if an ordinary evaluation agrees, else those of that."""
        there = system.to(self.device)
        with reference_only():  # by no kernel that may be what is wrong
            reference = on_host(evaluate(model, there, neighbor_list(there, model.cutoff)))
        allowed = tolerance(model.dtype, [current_precision()])
        self.problem = disagreement(found, reference, allowed)
        if self.problem is None:
            return found
        self._prepared = None
        _log.warning(
            "steps in fixed shapes are not used: %s; results are those of ordinary evaluations",
            self.problem,
        )
        return reference

    def _run(self) -> Findings:
        assert self._prepared is not None
        self.n_steps += 1
        return self._prepared.run()

    def _prepare(self, model: PET, system: System) -> None:
        """Memory for a structure, with room for its neighbors and some more."""
        # what an earlier graph holds is free for the next one
        self._prepared = None
        there = system.to(self.device)
        graph = self._list(model, system, there, capacity=None)
        plan = BucketPlan.of(neighbor_counts(model, there, graph), model.config.d_pet)
        self._started(PreparedStep(model, system, graph, plan))
        self.n_prepared += 1

    def _renew(self) -> None:
        """A list for where the atoms are now; memory with more slots if it needs them."""
        step = self._prepared
        assert step is not None
        graph = self._list(step.model, step.host, step.system, step.graph.capacity)
        if graph.capacity > step.graph.capacity:
            arguments = (step.model, step.host)
            del step, graph
            self._prepare(*arguments)
            return
        step.set_list(graph)
        self._started(step)

    def _started(self, step: PreparedStep) -> None:
        self._prepared, self._moved, self._due = step, 0.0, False

    def _builds_there(self, there: System, capacity: int) -> bool:
        """Whether the device builds the list: all pairs of a few atoms, or by Triton's kernels."""
        if self.device.type != "cuda":
            return False
        if there.n_atoms <= ALL_PAIRS:
            return True
        return matrix_operation.selected and capacity <= MOST_SLOTS

    def _list(self, model: PET, host: System, there: System, capacity: int | None) -> SlotGraph:
        """A list with `capacity` slots, or with more if they do not suffice."""
        self.n_lists += 1
        reach = model.cutoff + self.skin
        slots = FIRST_SLOTS if capacity is None else capacity
        if not self._builds_there(there, slots):
            edges = neighbor_list(host, reach)
            counts = torch.bincount(edges.edge_index[0], minlength=host.n_atoms)
            most = int(counts.max())
            slots = capacity if capacity is not None and most <= capacity else with_room(most)
            matrix = matrix_from_edges(edges, host.n_atoms, slots)
            return SlotGraph.of(matrix).to(self.device)
        while True:
            matrix = neighbor_matrix(
                there.positions, there.cell, there.pbc, there.system_index, reach, capacity=slots
            )
            most = int(matrix.count.max())
            if most > slots or (capacity is None and slots != with_room(most)):
                slots = with_room(most)
                capacity = slots
                continue
            if bool(matrix.overflow):
                raise SimulationError(
                    "the neighbor list on the GPU must be complete, but it is not, and not for "
                    "want of slots; leave out `cuda_graph`, and report the structure"
                )
            return SlotGraph.of(matrix)
