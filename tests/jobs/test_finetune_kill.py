"""Fine-tuning whose workers or whose driver is killed: the steps, and what they come to, are the same."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.cli.training import main
from tests.jobs.finetuning import (
    FAST,
    arguments,
    assert_same_run,
    recordings,
    start,
    training_workers,
    write_corpus,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
LONGEST_S = 240.0
RUN = {"max_steps": 60, "save_steps": 5, "valid_share": 0.2, "num_workers": 2, "keep_last": 2}


@pytest.fixture(scope="module", autouse=True)
def _soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FAST.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), recordings(24))


@pytest.fixture(scope="module")
def told(corpus: Path) -> Callable[[Path], list[str]]:
    return lambda output: arguments(corpus, output, features=corpus.parent / "features", **RUN)


@pytest.fixture(scope="module")
def undisturbed(told: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(told(output)) == 0
    return output


def waited(until: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONGEST_S
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


def kill_in_a_write(output: Path) -> str:
    """Kills a worker between the files of a checkpoint; the checkpoint."""
    waited(lambda: len(training_workers()) == 2)
    first, second = training_workers()
    seen: list[Path] = []

    def caught() -> bool:
        folders = [place for place in output.glob("checkpoints/step-*") if place not in seen]
        unfinished = [place for place in folders if not (place / "complete.json").exists()]
        if not unfinished:
            return False
        first.suspend()
        second.suspend()
        if unfinished[0].exists() and not (unfinished[0] / "complete.json").exists():
            seen.insert(0, unfinished[0])
            return True
        first.resume()
        second.resume()
        return False

    waited(caught)
    first.kill()
    second.resume()
    return seen[0].name


def test_a_worker_that_dies_in_the_write_of_a_checkpoint(
    told: Callable[[Path], list[str]],
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, struck = tmp_path / "out", list[str]()
    killer = threading.Thread(target=lambda: struck.append(kill_in_a_write(output)), daemon=True)
    killer.start()
    assert main(told(output)) == 0
    killer.join()
    assert len(struck) == 1
    said = capsys.readouterr().err
    deaths = [line for line in said.splitlines() if line.startswith("worker ")]
    assert len(deaths) == 1
    assert re.fullmatch(r"worker [01] died \(\w+: .*\)", deaths[0])
    assert_same_run(output, undisturbed)


def test_a_driver_that_is_stopped_and_killed(
    told: Callable[[Path], list[str]],
    undisturbed: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"

    def after(step: int, command: subprocess.Popen[str]) -> bool:
        found = [int(place.parent.name[5:]) for place in output.glob("checkpoints/step-*/complete.json")]
        assert command.poll() is None, log.read_text()
        return bool(found) and max(found) >= step

    first = start(told(output), log)
    waited(lambda: after(5, first))
    assert main(told(output)) == 4
    assert f"process {first.pid}" in capfd.readouterr().err
    first.send_signal(signal.SIGINT)
    assert first.wait(LONGEST_S) == 128 + signal.SIGINT
    assert re.search(r": stopped after step \d+; the same command goes on\n", log.read_text())
    assert "Traceback" not in log.read_text()
    assert not (output / "lock.json").exists()

    second = start(told(output), log)
    waited(lambda: after(30, second))
    second.kill()
    assert second.wait(LONGEST_S) == -signal.SIGKILL
    assert (output / "lock.json").exists()

    assert main(told(output)) == 0
    assert_same_run(output, undisturbed)
