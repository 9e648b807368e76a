"""The first calculation is not slow: nothing heavy is imported or done in it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
    """Processor seconds of the first and of a later evaluation, and modules imported in the first."""
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


@pytest.mark.parametrize(
    ("control", "problem"),
    [
        ("_get = atoms.calc.calculate\n"
         "def slow(*a, **k):\n"
         "    end = time.process_time() + 2.5 * (not atoms.calc.results)\n"
         "    while time.process_time() < end: pass\n"
         "    _get(*a, **k)\n"
         "atoms.calc.calculate = slow", "slow"),
        ("_get = atoms.calc.calculate\n"
         "def lazy(*a, **k):\n"
         "    import sympy\n"
         "    _get(*a, **k)\n"
         "atoms.calc.calculate = lazy", "sympy"),
    ],
)  # fmt: skip
def test_delays_are_seen(control, problem):
    assert problem in problems(*first_call(control))
