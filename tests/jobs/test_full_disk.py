"""Disks that are full, or nobody may write to: a message, and a table that the next start goes on with."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from jobs.transcribe import main
from tests.conftest import ROOT

MIB = 1 << 20


def mounted(folder: Path, *options: str) -> None:
    told = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted(folder, "size=20m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def corpus(folder: Path) -> Path:
    """Sixteen clips in four tars; each with 2 MB of text, which goes to the table and hardly compresses."""
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    rng = random.Random(1)
    folder.mkdir()
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for clip in range(4):
                audio = io.BytesIO()
                start = rng.randrange(len(sound) - rate)
                soundfile.write(audio, sound[start : start + rate // 2], rate, format="WAV")
                text = base64.b64encode(rng.randbytes(3 * MIB // 2))
                for name, data in ((f"{clip}.wav", audio.getvalue()), (f"{clip}.txt", text)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder


@pytest.mark.usefixtures("local_ray")
def test_a_disk_that_fills_up_and_is_enlarged(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--input", str(corpus(tmp_path / "in")), "--model", str(ROOT / "demo/checkpoint")]
    told += ["--rows-per-file", "1"]
    assert main([*told, "--output", str(tmp_path / "undisturbed")]) == 0
    capsys.readouterr()
    status = main([*told, "--output", str(small_disk)])
    said = capsys.readouterr().err
    print(said)
    assert status
