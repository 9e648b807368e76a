"""The package's face: names, version, and a light import."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pet_calc

#: Workflows of one structure.
SINGLE = (
    *("relax", "run_md", "phonons", "quasi_harmonic"),
    *("elastic_constants", "equation_of_state"),
)


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    assert dir(pet_calc) == pet_calc.__all__ == sorted(pet_calc.__all__)
    assert len(set(pet_calc.__all__)) == len(pet_calc.__all__)


def test_every_workflow_has_its_configuration_at_the_root() -> None:
    for name in (*SINGLE, "relax_all", "analyze", "minimum_energy_path"):
        parameters = inspect.signature(getattr(pet_calc, name)).parameters
        kind = str(parameters["config"].annotation).removesuffix(" | None")
        assert kind in pet_calc.__all__, name
        assert parameters["config"].default is None, name
        assert parameters["on_progress"].kind is inspect.Parameter.KEYWORD_ONLY, name


def test_workflows_of_one_structure_begin_alike() -> None:
    for name in SINGLE:
        assert list(inspect.signature(getattr(pet_calc, name)).parameters)[:2] == [
            "atoms",
            "config",
        ], name


@pytest.mark.parametrize("name", pet_calc.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(pet_calc, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = pet_calc.no_such_name


@pytest.mark.parametrize("use", ["", "pet_calc.MDConfig, pet_calc.RelaxConfig, dir(pet_calc)"])
def test_import_is_light(use: str) -> None:
    code = f"import sys, pet_calc\n{use}\n"
    code += "print([m for m in ('torch', 'ase', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_the_same_everywhere(repo_root: Path) -> None:
    citation = (repo_root / "CITATION.cff").read_text(encoding="utf-8")
    found = re.search(r"^version: *\"?([^\"\s]+)", citation, flags=re.MULTILINE)
    assert found is not None
    assert found.group(1) == pet_calc.__version__
    changelog = (repo_root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(pet_calc.__version__)}\b", changelog)


def test_package_declares_its_types() -> None:
    assert (Path(pet_calc.__file__).parent / "py.typed").is_file()
