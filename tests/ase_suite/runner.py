"""Runs ASE's own tests with the stand-ins, and writes the report on all of them.

.. code-block:: bash

   python tests/ase_suite/runner.py docs/ase_suite.md
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Modules of ``ase.test`` about what moves atoms that calculate with a potential; together half a
#: minute.
FAST = (
    "optimize.test_cellawarebfgs",
    "optimize.test_climb_fix_internals",
    "optimize.test_fire",
    "optimize.test_fire2",
    "optimize.test_nsteps",
    "optimize.test_optimize_stepwise",
    "optimize.test_optimizers",
    "optimize.test_replay",
    "optimize.test_restart",
    "optimize.test_rfo",
    "precon.test_amin",
    "precon.test_lbfgs",
    "precon.test_unitcellfilter",
    "test_linesearch_maxstep",
    "filter.test_filter",
    "filter.test_strain",
    "filter.test_strain_emt",
    "constraints.test_CO2linear_Au111",
    "constraints.test_external_force",
    "constraints.test_fix_bond_length_mic",
    "constraints.test_fix_symmetry",
    "constraints.test_fixcom",
    "constraints.test_fixedline_fixedplane",
    "constraints.test_fixscaled",
    "constraints.test_fixsubsetcom",
    "constraints.test_hookean",
    "constraints.test_hookean_pbc",
    "constraints.test_mirror",
    "constraints.test_parameteric_constr",
    "test_dimer",
    "neb.test_COCu111",
    "neb.test_COCu111_2",
    "neb.test_neb",
    "neb.test_shared_calculator_neb",
    "test_dimer_method",
    "md.test_CO2linear_Au111_langevin",
    "md.test_bussi",
    "md.test_ce_potentiostat",
    "md.test_langevin_asapcompat",
    "md.test_langevin_com",
    "md.test_md",
    "md.test_md_stepwise",
    "md.test_phonon_md_init",
    "md.test_rng",
    "calculator.test_fd",
    "test_checkpoint",
    "test_eos",
    "test_forcecurve",
    "test_hcp",
    "test_loggingcalc",
    "test_phonons",
    "test_potential_energies",
    "test_singlepointcalc",
    "test_stress",
    "test_thermochemistry",
    "vibrations.test_vibrations_example",
)
#: Others, each for itself seconds to a minute.
SLOW = (
    "optimize.test_minimahop",
    "optimize.test_optimizer_restart",
    "precon.test_precon_assembly",
    "test_basin",
    "filter.test_cellfilter",
    "constraints.test_fixbondlength_CO2_Au111",
    "constraints.test_fixinternals",
    "neb.test_autoneb",
    "neb.test_dynamic_neb",
    "neb.test_neb_tr",
    "neb.test_precon_neb",
    "md.test_ce_curvature",
    "md.test_fixrotation",
    "md.test_langevinbaoab",
    "md.test_nose_hoover_chain",
    "md.test_position_distribution",
)
#: Dynamics of tens of thousands of steps, many minutes each; not part of the report.
LONG = (
    "md.test_nvt_npt",
    "md.test_verlet_thermostats_asap",
)


def run_modules(modules, folder):
    """Run `modules` of ``ase.test`` in one process inside of `folder`.

    Returns
    -------
    counts : dict of dict
        For each module passed, failed, xfailed and skipped tests, and calculations by stand-ins.
    output : str
        What pytest printed.
    """
    path = Path(folder) / "counts.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "ase_suite.stand_in", "-W", "ignore"),
            *("-p", "no:cacheprovider", "--tb=short", "--pyargs"),
            *(f"ase.test.{module}" for module in modules),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
            "MPLBACKEND": "Agg",
            "ASE_SUITE_COUNTS": str(path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    if not path.is_file():
        raise RuntimeError(f"pytest must reach its end, but it stopped with:\n{output[-3000:]}")
    return json.loads(path.read_text(encoding="utf-8")), output


def report(counts):
    """The page on `counts` in Markdown."""
    import ase

    reasons = tomllib.loads((HERE / "does_not_apply.toml").read_text(encoding="utf-8"))
    names = ("passed", "xfailed", "skipped", "failed", "calculations")
    rows = [(m, counts[m]) for m in (*FAST, *SLOW)]
    rows += [("**all**", {k: sum(c.get(k, 0) for _, c in rows) for k in names})]
    lines = [
        "# The tests of ASE",
        "",
        "ASE's own tests of optimizers, filters, constraints, paths and dynamics, run with",
        "calculators of `pet_calc` in the place of EMT (also that of asap3), Lennard-Jones and",
        "Morse. The potentials are the same; conversion, neighbor lists, derivatives and caches",
        "are those that every potential of `pet_calc` uses. Made by",
        "",
        "```bash",
        "python tests/ase_suite/runner.py docs/ase_suite.md",
        "```",
        "",
        f"with ASE {ase.__version__}:",
        "",
        "| module of `ase.test` | passed | expected to fail | skipped | failed | calculations |",
        "|---|---|---|---|---|---|",
        *(f"| {m} | " + " | ".join(str(c.get(k, 0)) for k in names) + " |" for m, c in rows),
        "",
        f"Without {' and '.join(f'`{m}`' for m in LONG)}, which take many minutes:",
        "`pytest -m slow tests/ase_suite` runs them too.",
        "",
        "Expected to fail by `does_not_apply.toml`; others in that column by ASE itself:",
        "",
        *(f"- `{name}` ({entry['raises']}): {entry['reason']}" for name, entry in reasons.items()),
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="where the report goes, a Markdown file")
    page = parser.parse_args().page
    counts = {}
    for modules in (FAST, *((m,) for m in SLOW)):
        with tempfile.TemporaryDirectory() as folder:
            found, output = run_modules(modules, folder)
        print(output.splitlines()[-1], *(modules if len(modules) == 1 else ["fast modules"]))
        counts |= found
    page.write_text(report(counts), encoding="utf-8")


if __name__ == "__main__":
    main()
