"""How long a job takes on which there is next to nothing to do, against what the engine itself takes.

    python -m bench.start --date 2026-11-28 --output bench/results/start.md

In alternation, each in processes and a Ray cluster of its own: the demo's job (30 clips, four annotations),
and a Ray Data job whose one actor imports torch and hands on 30 rows. Medians of wall and processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from bench.machine import describe
from bench.spent import Spent, spend

ROOT = Path(__file__).resolve().parent.parent
HEADS = {"transcribe": "checkpoint", "classify": "classify", "diarize": "diarize", "embed": "embed"}
EMPTY = """
import logging, os
import ray

class Actor:
    def __init__(self):
        import torch
    def __call__(self, batch):
        return batch

ray.init(num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False,
         logging_level=logging.WARNING)
rows = ray.data.range(30).map_batches(Actor, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.5)
assert rows.materialize().count() == 30
"""


def demo(output: Path) -> list[str]:
    command = [sys.executable, str(ROOT / "jobs/annotate.py"), "--input", str(ROOT / "demo/corpus")]
    command += ["--output", str(output), "--ray-address", "local"]
    for task, folder in HEADS.items():
        command += [f"--{task}", str(ROOT / "demo" / folder)]
    return command


def measure(runs: int) -> dict[str, list[Spent]]:
    found: dict[str, list[Spent]] = {"demo": [], "empty": []}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        for run in range(runs):
            commands = {"demo": demo(home / f"table-{run}"), "empty": [sys.executable, "-c", EMPTY]}
            for name, command in commands.items():
                found[name].append(spend(command, log=home / f"{name}.log"))
                print(
                    f"{name}: {found[name][-1].wall_s:.1f} s, {found[name][-1].cpu_s:.1f} s of CPU",
                    flush=True,
                )
    return found


def report(found: dict[str, list[Spent]], head: str) -> str:
    walls = {name: statistics.median(one.wall_s for one in runs) for name, runs in found.items()}
    cpus = {name: statistics.median(one.cpu_s for one in runs) for name, runs in found.items()}
    lines = ["# Start", "", head, "", f"Medians of {len(found['demo'])} runs, in alternation.", ""]
    lines += ["| job | wall, s | processors, s |", "| --- | --- | --- |"]
    said = {"demo": "the demo's job, 30 clips, four annotations", "empty": "an empty job of the engine"}
    lines += [f"| {text} | {walls[name]:.1f} | {cpus[name]:.1f} |" for name, text in said.items()]
    lines += ["", f"The demo's job takes {walls['demo'] / walls['empty']:.2f} x the empty one.", ""]
    lines += ["Where processor time goes in the demo's job (its last run):", ""]
    parts = sorted(found["demo"][-1].by_process.items(), key=lambda part: -part[1])
    lines += [f"- {name}: {seconds:.1f} s" for name, seconds in parts if seconds >= 0.1]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    text = report(measure(args.runs), describe(args.date))
    print(text)
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
