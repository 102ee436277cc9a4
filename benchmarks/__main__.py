"""All benchmarks, one after the other, and one table of what they found.

    python benchmarks [SCRIPT ...] [--table] [--list]

Each script runs in a process of its own and writes its rows to `results/<machine>.json`; a script that fails does not
stop the others. Without names all of them run, which takes several hours of two cores: leave the machine alone
meanwhile, timings are ratios of one run but noise is noise. `--table` only prints the table of this machine's file;
`--list` says how long each script takes. Peers run in the same process or the same turn: PyAMG and scikit-fem (finite
elements), SciPy's L-BFGS-B with finite differences (placement), a PyTorch GRU-VAE of torch's own modules (EMG; torch
must be installed), its convolutions (networks), one model after the other (populations).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import record
from figures import table

HERE = Path(__file__).parent
SCRIPTS = {  # minutes on two cores
    "sphere.py": 5,
    "interface_errors.py": 15,
    "conforming.py": 20,
    "gauge.py": 1,
    "first_minute.py": 6,
    "coil_potential.py": 2,
    "solver.py": 10,
    "tetrahedra.py": 15,
    "many_poses.py": 12,
    "basis.py": 30,
    "fields_by_basis.py": 20,
    "one_pose.py": 5,
    "placement.py": 25,
    "population.py": 25,
    "muscle.py": 60,
    "network_step.py": 4,
    "inverse.py": 10,
    "sources.py": 90,
    "design.py": 120,
    "thresholds.py": 10,
    "motor_maps.py": 1,
    "synergies.py": 1,
    "recordings.py": 2,
    "bayes_filter.py": 3,
    "emg_step.py": 6,
    "emg_truth.py": 60,
    "emg_rat.py": 70,
    "live.py": 20,
    "device.py": 8,
}


def main():
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="such as solver.py; by default all")
    parser.add_argument("--table", action="store_true", help="print the table and leave")
    parser.add_argument("--list", action="store_true", help="print the scripts with their minutes and leave")
    options = parser.parse_args()
    unknown = set(options.scripts) - set(SCRIPTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such script; --list tells which there are.")
    chosen = [name for name in SCRIPTS if not options.scripts or name in options.scripts]
    if options.list:
        print("\n".join(f"{SCRIPTS[name]:4d} min  {name}" for name in chosen))
        return 0
    failed = [] if options.table else run(chosen)
    if record.path().exists():
        print(table(json.loads(record.path().read_text())))
    if failed:
        print("failed:", "; ".join(failed), file=sys.stderr)
    return len(failed)


def run(names):
    """The scripts that failed."""
    failed = []
    for number, name in enumerate(names, 1):
        left = sum(SCRIPTS[other] for other in names[number - 1 :])
        print(f"[{number}/{len(names)}] {name}, about {left} min left in all", flush=True)
        began = time.perf_counter()
        code = subprocess.call([sys.executable, str(HERE / name)])
        print(f"[{number}/{len(names)}] {name}: {time.perf_counter() - began:.0f} s, status {code}", flush=True)
        if code:
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(main())
