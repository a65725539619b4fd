"""Fixtures every test may use."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: several processes with several threads each trample one another on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # how long an example takes says nothing here
settings.load_profile("no deadline")

if TYPE_CHECKING:
    from torch import Tensor

SOAK = bool(os.environ.get("W2VBERT_SOAK"))  # `make soak`: longer recordings, more kills, more damage
ROOT = Path(__file__).resolve().parent.parent
_CLUSTERS = {"local_ray", "own_cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what asks for a cluster, for `-m "not ray"`; skips what only a soak runs. Slow tests come first,
    so that none is left to one process at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if item.get_closest_marker("soak") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="minutes long: `make soak` runs it"))
        if SOAK:
            item.add_marker(pytest.mark.timeout(0))
        if _CLUSTERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The one cluster of the session, of two CPUs. Jobs run in process join it, those run as commands by
    RAY_ADDRESS, unless they are told another."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into the home
        _start_ray()
        yield
        ray.shutdown()
        patch.delenv("RAY_ADDRESS")


def _start_ray() -> None:
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """A test that failed may leave a cluster without room, or none: the next one gets a new cluster, once the
    fixtures of this one have ended, of which one puts the old RAY_ADDRESS back."""
    ray = sys.modules.get("ray")
    if nodeid in _failed and ray is not None and ray.is_initialized():
        ray.shutdown()
        _start_ray()


@pytest.fixture(scope="session")
def demo_table(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's corpus, transcribed: for tests that leave the table as it is."""
    from jobs.transcribe import main

    output = tmp_path_factory.mktemp("demo") / "out"
    demo = ROOT / "demo"
    paths = ["--input", demo / "corpus", "--model", demo / "checkpoint", "--output", output]
    assert main(list(map(str, paths))) == 0
    return output


@pytest.fixture
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that start clusters of their own, in processes of their own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(autouse=True)
def _no_cluster_unasked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that starts Ray without one of the fixtures, which would leave it unmarked."""
    yield
    ray = sys.modules.get("ray")
    shared = request.node.get_closest_marker("ray") or "RAY_ADDRESS" in os.environ
    if ray is not None and ray.is_initialized() and not shared:
        ray.shutdown()
        pytest.fail("this test started a Ray cluster: it needs the fixture local_ray")


def _shared(name: str) -> Path:
    base = Path(os.environ.get("W2VBERT_SHARED", ROOT.parent / "shared"))
    path = base / name
    if not path.is_dir():
        pytest.skip(f"{name}/ of the shared test material is absent (set W2VBERT_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech with labels; the test is skipped where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of checkpoints made with the peer; the test is skipped where it is absent."""
    return _shared("models")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Folder of generators of inputs that went wrong once; the test is skipped where it is absent."""
    return _shared("cases")


@pytest.fixture(scope="session")
def digit_strings(shared_models: Path, shared_data: Path) -> list[tuple[dict[str, Any], Tensor]]:
    """Strings of spoken digits: each as `expected.jsonl` tells of it, and its logits (frames, vocab)."""
    import soundfile
    import torch
    import torchaudio

    from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC
    from w2vbert.packing import Packed

    checkpoint = shared_models / "digits-ctc"
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    strings = []
    for line in (checkpoint / "expected.jsonl").read_text("utf-8").splitlines():
        clip = json.loads(line)
        if not clip["path"].startswith("strings/"):
            continue
        audio, rate = soundfile.read(shared_data / clip["path"], dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(audio), rate, 16000)
        features = torch.from_numpy(extractor.extract(waveform, keep_partial=True))
        num_valid = [extractor.num_frames(len(waveform))]
        with torch.inference_mode():
            encoding = model.wav2vec2_bert.encode(Packed.from_sequences([features]), num_valid=num_valid)
            strings.append((clip, model.frame_logits(encoding).frames))
    return strings
