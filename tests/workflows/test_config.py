import inspect
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from pet_calc.doctor.config import DoctorConfig
from pet_calc.workflows.guards.config import GuardConfig
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.mechanics.config import ElasticConfig, EosConfig, NebConfig
from pet_calc.workflows.observables.config import AnalysisConfig
from pet_calc.workflows.phonons.config import PhononConfig, QHAConfig
from pet_calc.workflows.relax.config import RelaxConfig

CONFIGS = (
    *(AnalysisConfig, DoctorConfig, ElasticConfig, EosConfig, GuardConfig, MDConfig, NebConfig),
    *(PhononConfig, QHAConfig, RelaxConfig),
)


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_field_has_its_own_entry_in_the_docstring(cls):
    """The command line takes its help from these entries."""
    text = inspect.cleandoc(cls.__doc__).partition("Attributes\n----------\n")[2]
    entries = re.findall(r"^(\w+) : .+\n    \S.+", text, flags=re.MULTILINE)
    assert entries == [field.name for field in fields(cls)]


def test_settings_need_neither_torch_nor_ase():
    modules = ", ".join(sorted({cls.__module__ for cls in CONFIGS}))
    code = f"import sys, {modules}\nprint(sorted({{'ase', 'scipy', 'torch'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
