"""The import contracts of pyproject.toml hold, and would notice if they did not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)


@pytest.fixture
def skeleton(repo_root: Path, tmp_path: Path) -> Path:
    """A copy of the package's sources that a test may break."""
    shutil.copytree(
        repo_root / "pet_calc",
        tmp_path / "pet_calc",
        ignore=shutil.ignore_patterns("__pycache__", "_potentials"),
    )
    shutil.copy(repo_root / "pyproject.toml", tmp_path)
    return tmp_path


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False
    )


def test_contracts_hold(skeleton: Path) -> None:
    done = _lint(skeleton)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("geometry/upward.py", "import pet_calc.workflows", "Imports point down BROKEN"),
        ("training/sideways.py", "import pet_calc.workflows", "Imports point down BROKEN"),
        ("models/with_ase.py", "import ase", "The physics does not import ASE BROKEN"),
        ("workflows/fit.py", "import pet_calc.training", "need the training code BROKEN"),
        ("utils.py", "", "not listed as layers: - pet_calc.utils"),
    ],
    ids=["upward", "sideways", "ase", "training", "homeless-module"],
)
def test_contracts_notice(skeleton: Path, module: str, line: str, complaint: str) -> None:
    (skeleton / "pet_calc" / module).write_text(f'"""Wrong on purpose."""\n{line}\n')
    done = _lint(skeleton)
    assert done.returncode != 0
    assert complaint in " ".join((done.stdout + done.stderr).split())
