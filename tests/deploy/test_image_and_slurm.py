"""The image's recipe against the tree, and the Slurm script as bash and Slurm read it."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
SCRIPT = ROOT / "deploy" / "slurm.sh"


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
