"""Motion in liquid water: prints where O-H stretching peaks, and the self-diffusion coefficient.

Experiment: the stretching band of liquid water lies near 3400 cm⁻¹ at 298 K; classical nuclei come
out higher. D is 2.30 · 10⁻⁹ m²/s (Holz et al. (2000)); it takes tens of picoseconds to converge.

    python md_examples/03_water_dynamics.py            # 32 molecules, 5 ps: an hour of one core
    python md_examples/03_water_dynamics.py --smoke    # a few steps, to see that it works
"""

import argparse

from ase.io import read

from pet_calc import PETCalculator
from pet_calc.io.runs.figures import save_figure
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.observables import WATER_DIFFUSION, AnalysisConfig, analyze
from pet_calc.workflows.observables.figures import analysis_figure
from pet_calc.workflows.progress import ProgressBar
from pet_calc.workflows.water_box import water_box

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--smoke", action="store_true", help="few molecules and steps")
parser.add_argument("--molecules", type=int, default=32)
parser.add_argument("--picoseconds", type=float, default=5.0)
parser.add_argument("--out", default="water_dynamics", help="output folder")
options = parser.parse_args()

atoms = water_box(molecules=12 if options.smoke else options.molecules, density=1.0, seed=1)
atoms.calc = PETCalculator()

config = MDConfig(
    ensemble="nvt-bussi",  # a global thermostat, which hardly disturbs the motion of molecules
    temperature=300.0,  # K
    timestep=0.5,  # fs
    tau=100.0,  # fs
    steps=120 if options.smoke else round(options.picoseconds * 2000),
    frame_interval=4,  # 2 fs between frames; 4 fs is the most that resolves O-H stretching
    seed=1,
)
with ProgressBar() as progress:
    result = run_md(atoms, config, options.out, on_progress=progress)

frames = read(result.trajectory_file, index=":")
interval = config.frame_interval * config.timestep  # fs
water = analyze(frames[len(frames) // 5 :], AnalysisConfig(interval=interval))
save_figure(analysis_figure(water), f"{options.out}/observables.png")

vdos = water.tables["vdos"]
wavenumber, density = vdos["wavenumber_per_cm"], vdos["vdos_per_THz"]
stretch = wavenumber > 2500.0
peak = wavenumber[stretch][density[stretch].argmax()]
print(f"O-H stretching peak    {peak:.0f} cm⁻¹ (bins of {wavenumber[1]:.0f} cm⁻¹)")
print("experiment             about 3400 cm⁻¹")
print(f"hydrogen bonds         {water.value('hydrogen bonds per molecule')} per molecule")
if "D of O" in water.skipped:
    print(f"self-diffusion         not from this run: {water.skipped['D of O']}")
else:
    print(f"self-diffusion         {water.value('D of O')} · 10⁻⁹ m²/s in this cell")
    print(f"  for infinite size    {water.value('D of O, infinite size')} · 10⁻⁹ m²/s")
print(f"experiment             {WATER_DIFFUSION} · 10⁻⁹ m²/s")
