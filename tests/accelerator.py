"""Measure the engine on a machine with a GPU, in a few minutes, by one command.

    python tests/accelerator.py --out DIR [--part checks|cost|studies|all] [--minutes M]
    python tests/accelerator.py --out DIR --rehearse          everything in small on this machine's processor
    python tests/accelerator.py --wheels DIR                  packages and data to take along, where there is a network
    python tests/accelerator.py --publish DIR [DIR ...]       results of runs into studies/results/accelerator

Jobs run in order of what they are worth; one that does not fit into the time left is skipped and says so, one that
fails is logged and does not stop the others. Results are written after each: tables, arrays, a manifest with the card,
driver, versions, commit (environment variable STUDIES_COMMIT where there is no clone) and command, and a log.
A folder `.wheels` beside `tests`, where there is one, is installed first, into a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
WHEELS = ROOT / ".wheels"
LINES = 56  # of the table


def carried(folder: Path) -> None:
    """Install the wheels that came along, beside what is there, and point the data's loader at its files."""
    if (folder / "datasets").is_dir():
        os.environ["XDG_DATA_DIRS"] = f"{folder}:{os.environ.get('XDG_DATA_DIRS', '/usr/local/share:/usr/share')}"
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        return
    site = Path(tempfile.gettempdir()) / f"carried-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if not site.is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*command, "--target", str(site), *map(str, wheels)], check=True)
    # Behind what is installed: a carried package only stands in for a missing one.
    sys.path.append(str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(site)]))


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--part", default="all", choices=["checks", "cost", "studies", "all"])
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    parser.add_argument("--only", default="", help="names of jobs, separated by commas")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the processor unless --device is given")
    parser.add_argument("--wheels", type=Path, help="make the folder of packages and data, and stop")
    parser.add_argument(
        "--publish", type=Path, nargs="+", help="turn the results of runs into published tables, and stop"
    )
    asked = parser.parse_args(arguments)
    if asked.wheels:
        from accelerator_parts import wheels

        return wheels.make(asked.wheels)
    if asked.publish:
        from accelerator_parts import publish

        return publish.publish(asked.publish, ROOT / "studies" / "results" / "accelerator")
    if asked.out is None:
        parser.error("--out is missing: name a folder for the results.")
    return measure(asked)


def measure(asked: argparse.Namespace) -> int:
    """Do the jobs and print the table; the exit status is 1 where a job failed."""
    start = time.monotonic()
    carried(WHEELS)
    import torch
    from accelerator_parts import attributions, checks, cost, photographs, plan, protocols, store, suite, truth

    device = "cpu" if asked.rehearse and asked.device == "cuda" else asked.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU on this machine: --rehearse runs everything in small on its processor.")
        return 2
    if device == "cpu":
        torch.set_num_threads(1)
    # By default convolutions round single precision to ten bits: here only where a job says so.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    known = {"part": asked.part, "minutes": asked.minutes, "seed": asked.seed, "rehearsal": asked.rehearse}
    results = store.Store(asked.out, known)
    # What was never measured comes before what is measured again.
    first, answers, *others = truth.JOBS
    *quick, influences = cost.JOBS
    studies = [first, answers, *attributions.JOBS, *protocols.JOBS, *photographs.JOBS]
    jobs = [*checks.JOBS, *studies, cost.COMPILATION]
    jobs += [suite.START, *quick, influences, *others, *cost.LATER, suite.END]
    names = set(filter(None, asked.only.split(",")))
    if unknown := names - {job.name for job in jobs}:
        print(f"no job is called {sorted(unknown)[0]!r}: choose from {', '.join(job.name for job in jobs)}.")
        return 2
    chosen = [job for job in jobs if (job.name in names if names else asked.part in (job.part, "all"))]
    setting = plan.Setting(device, asked.rehearse, asked.out, asked.seed)
    ended = plan.run(chosen, setting, 60 * asked.minutes - (time.monotonic() - start), results)
    report(ended, results)
    return 1 if any(each.verdict.startswith("failed") for each in ended) else 0


def report(ended: list, results) -> None:
    """How every job ended, and the values that matter most."""
    from accelerator_parts import store

    lines = [f"{each.job.name:16} {each.seconds:6.1f} s  {each.verdict}" for each in ended]
    result = store.table(results.frame(), LINES - len(lines))
    card = store.gpu()
    print("\n" + "=" * 40, (card or {"name": "no GPU"})["name"])
    print("\n".join([*lines, "-" * 40, *result]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
