"""The package's face: names, version, and a light import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pet_calc


def test_all_is_sorted_and_complete() -> None:
    assert pet_calc.__all__ == sorted(pet_calc.__all__)
    submodules = {p.stem for p in Path(pet_calc.__file__).parent.iterdir()}
    machinery = {"TYPE_CHECKING", "Any"}
    public = {
        name for name in dir(pet_calc) if not name.startswith("_") and name not in submodules
    } - machinery
    assert public | {"__version__"} == set(pet_calc.__all__)


@pytest.mark.parametrize("name", pet_calc.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(pet_calc, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = pet_calc.no_such_name


def test_import_is_light() -> None:
    code = "import sys, pet_calc; print([m for m in ('torch', 'ase', 'scipy') if m in sys.modules])"
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
