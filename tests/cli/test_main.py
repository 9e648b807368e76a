"""The entry point of ``pet-calc``: errors, threads, a light import."""

import os
import subprocess
import sys

import pytest
from ase.build import bulk
from ase.io import write

import pet_calc
from pet_calc import cli


def test_number_of_threads_follows_the_free_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for load, expected in ((0.2, 8), (3.4, 5), (7.6, 1), (30.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert cli.free_cores() == expected


@pytest.mark.parametrize("given", ["3", None])
def test_a_number_of_threads_that_is_set_is_kept(given):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if given:
        environment["OMP_NUM_THREADS"] = given
    code = (
        "import os, sys; from pet_calc import cli; sys.argv = ['pet-calc', 'models', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('threads', os.environ['OMP_NUM_THREADS'], 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    word, threads, torch_loaded = out.split()
    assert word == "threads"
    assert int(threads) >= 1
    assert threads == given or given is None
    assert torch_loaded == "False"  # --help answers without loading torch


def test_foreseen_errors_are_one_paragraph_and_exit_code_1():
    run = subprocess.run(
        [sys.executable, "-c", "from pet_calc.cli import main; main()", "models", "show", "absent"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("Error: ")
    assert "Traceback" not in run.stderr


def answer(*words):
    """What ``python -m pet_calc`` prints, and which heavy modules it has loaded by then."""
    code = (
        "import sys; from pet_calc.cli import main; sys.argv = ['pet-calc', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "else: code = 0\n"
        "print('loaded', code, 'torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    *lines, last = run.stdout.splitlines()
    _, code, torch, matplotlib = last.split()
    return int(code), "\n".join(lines), run.stderr, "True" in (torch, matplotlib)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        *(((verb, "-h"), 0) for verb in ("md", "relax", "qha", "elastic", "neb", "doctor")),
        *(((verb, "-h"), 0) for verb in ("generate", "predict", "analyze", "train", "evaluate")),
        (("models", "list"), 0),
        (("models", "list", "--all", "--json"), 0),
        (("models", "show", "pet-water-v1"), 0),
        (("models", "show", "pet-nothing"), 1),
        (("models", "path", "cgcnn-mp"), 0),
        (("show", "nothing"), 1),
        (("md", "nothing.cif"), 1),
        (("relax", "nothing.cif"), 1),
        (("predict", "nothing.cif", "--property", "x"), 1),
        (("phonons", "nothing.cif", "--out", "."), 1),
        (("md", "--system", "water", "--steps", "-1"), 1),
        (("md", "--no-such-option"), 2),
        (("eos", "nothing.cif", "--cell", "cubic"), 2),
    ],
    ids=str,
)
def test_help_and_wrong_arguments_load_nothing_heavy(words, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _, error, heavy = answer(*words)
    assert found == code, error
    assert not heavy
    assert not list(tmp_path.iterdir())


def test_version_and_module():
    run = subprocess.run(
        [sys.executable, "-m", "pet_calc", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"pet-calc {pet_calc.__version__}\n"


@pytest.mark.parametrize("flag", [None, "--quiet", "--verbose"])
def test_how_much_is_told(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("copper.xyz", bulk("Cu"))
    words = ("relax", "copper.xyz", "--calculator", "ase.calculators.emt:EMT", "--steps", "1")
    code, out, error, _ = answer(*([flag] if flag else []), *words, "--fmax", "10")
    assert code == 0
    assert "1 converged" in out
    assert bool(error) == (flag != "--quiet")


def test_quiet_and_verbose_exclude_each_other():
    assert answer("-q", "-v", "models")[0] == 2
