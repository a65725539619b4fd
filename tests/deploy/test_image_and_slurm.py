"""The image's recipe against the tree, and the Slurm script with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
SCRIPT = ROOT / "deploy" / "slurm.sh"
# One task on this machine in place of `srun`'s many: what stands behind its options is run as it is.
SRUN = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/sh\necho localhost\n"


def test_the_image_has_what_the_wheel_is_built_from() -> None:
    copied = [
        name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    assert set(copied) == {
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
        *("w2vbert", "pipeline", "jobs"),
    }
    allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_no_image_runs_as_root() -> None:
    assert DOCKERFILE.index("USER ray") > DOCKERFILE.rindex("RUN ")


def test_the_script_is_shell_with_options_that_slurm_reads() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    options = [line for line in lines if line.startswith("#SBATCH ")]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert len(options) == 7
    assert all(lines.index(option) < first for option in options)  # Slurm reads none behind a command
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", option) for option in options)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cluster")
def test_a_lane_of_an_allocation(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    demo = ROOT / "demo"
    table = tmp_path / "table"
    told = ["--input", demo / "corpus/loose", "--model", demo / "checkpoint", "--output", table]
    done = subprocess.run(
        ["bash", SCRIPT, *map(str, told)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (clips,) = duckdb.sql(f"SELECT count(*) FROM '{table}/*.parquet'").fetchone() or (0,)
    assert 0 < clips < 6  # the other lane has the rest
