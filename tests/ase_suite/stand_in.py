"""A pytest plugin that puts calculators of pet_calc in the place of those that ASE's tests use.

The suite has no hook for other calculators: its tests import EMT, LennardJones and MorsePotential
from ``ase.calculators``, or ask for the package asap3, a faster EMT, and are skipped without it.
Loaded with ``-p`` before they are collected, this module puts stand-ins under these names. They
have the same energies, so that the numbers in the tests hold; what ASE's optimizers, dynamics,
filters and constraints meet is `ModelCalculator` with its conversion, neighbor list with a skin,
forces and stress by autograd, and cache of results.

Tests that cannot apply are listed in ``does_not_apply.toml`` with the error that they end in and
the reason. They are run and must end in that error, so that the list cannot outlive its reasons.
"""

import builtins
import json
import os
import sys
import time
import tomllib
from collections import Counter, defaultdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import ase.calculators.calculator
import ase.calculators.emt
import ase.calculators.lj
import ase.calculators.morse
import pytest
import torch
from ase_suite.effective_medium import EffectiveMediumCalculator
from ase_suite.pairs import LennardJonesCalculator, MorseCalculator

import pet_calc.errors

EXCEPTIONS = tomllib.loads(
    (Path(__file__).parent / "does_not_apply.toml").read_text(encoding="utf-8")
)
COUNTS = defaultdict(Counter)  # of each module of the suite
CALLS = Counter()


class Counting:
    def calculate(self, *arguments, **options):
        CALLS["calculations"] += 1
        super().calculate(*arguments, **options)


class EMTStandIn(Counting, EffectiveMediumCalculator):
    pass


class AsapStandIn(EMTStandIn):
    def __init__(self):
        super().__init__(asap_cutoff=True)


class LennardJonesStandIn(Counting, LennardJonesCalculator):
    pass


class MorseStandIn(Counting, MorseCalculator):
    pass


ase.calculators.emt.EMT = EMTStandIn
ase.calculators.lj.LennardJones = LennardJonesStandIn
ase.calculators.morse.MorsePotential = MorseStandIn
asap3 = ModuleType("asap3", "Stands in for the package of that name.")
asap3.__spec__ = ModuleSpec("asap3", None)
asap3.__version__ = "0"
asap3.EMT = AsapStandIn
sys.modules["asap3"] = asap3


def module_of(item):
    """``md.test_md`` for a test in that file, whatever the folder of the installation."""
    return item.path.with_suffix("").as_posix().split("ase/test/")[-1].replace("/", ".")


def error_class(name):
    for place in (builtins, ase.calculators.calculator, pet_calc.errors):
        if hasattr(place, name):
            return getattr(place, name)
    raise ValueError(f"does_not_apply.toml names the error {name}, which is not known here")


def pytest_configure(config):
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        name = f"{module_of(item)}::{item.name}"
        entry = EXCEPTIONS.get(name) or EXCEPTIONS.get(name.split("[")[0])
        if entry:
            error = error_class(entry["raises"])
            strict = entry.get("strict", True)
            mark = pytest.mark.xfail(reason=entry["reason"], raises=error, strict=strict)
            item.add_marker(mark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    calls, start = CALLS["calculations"], time.process_time()
    result = yield
    COUNTS[module_of(item)]["calculations"] += CALLS["calculations"] - calls
    COUNTS[module_of(item)]["cpu_seconds"] += time.process_time() - start
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.when == "call" or (report.when == "setup" and not report.passed):
        expected = hasattr(report, "wasxfail") and report.skipped
        COUNTS[module_of(item)]["xfailed" if expected else report.outcome] += 1
    return report


def pytest_sessionfinish():
    if path := os.environ.get("ASE_SUITE_COUNTS"):
        Path(path).write_text(json.dumps(COUNTS), encoding="utf-8")
