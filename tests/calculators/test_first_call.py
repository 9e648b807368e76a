"""The first calculation is not slow: nothing heavy is imported or done in it."""

from __future__ import annotations

import json
import subprocess
import sys

# what a process says after a first and some more evaluations
SCRIPT = """
import json, sys, time
import torch
torch.set_num_threads(1)
from ase.build import molecule
from pet_calc import PETCalculator
atoms = molecule("H2O", vacuum=3.0)
atoms.pbc = True
atoms.calc = PETCalculator("pet-water-v1")
before = set(sys.modules)
{control}
def step():
    start = time.process_time()
    atoms.positions += 1e-3
    atoms.get_forces()
    return time.process_time() - start
first = step()
modules = sorted(set(sys.modules) - before)
print(json.dumps([first, min(step() for _ in range(5)), modules]))
"""

#: Packages that take long to import and have nothing to do in an evaluation.
HEAVY = ("sympy", "torch._dynamo", "torch._inductor", "matplotlib", "rich", "triton", "e3nn")
#: Seconds of processor time by which a first evaluation may exceed others.
MOST = 2.0


def first_call(control=""):
    """Processor seconds of a first and a later evaluation, and modules that the first imports."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{control}", control)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def problems(first, steady, modules):
    """What makes a first evaluation slow."""
    found = {name for name in modules if name.startswith(HEAVY)}
    return found | ({"slow"} if first - steady > MOST else set())


def test_the_first_evaluation_imports_nothing_heavy_and_costs_little():
    assert problems(*first_call()) == set()


def test_delays_are_seen():
    control = """
compute = atoms.calc.calculate
def lazy(*arguments, **options):
    import sympy
    compute(*arguments, **options)
atoms.calc.calculate = lazy
"""
    assert "sympy" in problems(*first_call(control))
    assert problems(0.2 + MOST, 0.1, []) == {"slow"}
