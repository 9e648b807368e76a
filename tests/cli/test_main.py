"""The entry point of ``pet-calc``: errors, threads, a light import."""

import os
import subprocess
import sys

import pytest

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
