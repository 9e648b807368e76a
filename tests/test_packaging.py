"""The wheel and the source archive hold the potentials, and an installed wheel finds them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pet_calc


def _build(repo_root: Path, target: str, out: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def _shipped(repo_root: Path) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", "potentials"],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    listed = {Path(p).relative_to("potentials").as_posix() for p in done.stdout.splitlines()}
    return listed or {"index.toml"}


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(repo_root, "wheel", tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_package_and_potentials(repo_root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == f"pet_calc-{pet_calc.__version__}-py3-none-any.whl"
    assert {f"pet_calc/_potentials/{p}" for p in _shipped(repo_root)} <= names
    assert "pet_calc/py.typed" in names
    sources = {p.relative_to(repo_root).as_posix() for p in (repo_root / "pet_calc").rglob("*.py")}
    assert sources <= names
    assert {n.split("/")[0] for n in names} == {
        "pet_calc",
        f"pet_calc-{pet_calc.__version__}.dist-info",
    }


def test_wheel_declares_command_and_license(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"pet_calc-{pet_calc.__version__}.dist-info"
    assert "pet-calc = pet_calc.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "License-Expression: BSD-3-Clause" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_source_archive_holds_potentials(repo_root: Path, tmp_path: Path) -> None:
    archive = _build(repo_root, "sdist", tmp_path)
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames()}
    assert {f"potentials/{p}" for p in _shipped(repo_root)} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= names
    # tests read the pages
    assert {f"docs/{p.name}" for p in (repo_root / "docs").glob("*.md")} <= names
