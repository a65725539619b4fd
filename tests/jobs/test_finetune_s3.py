"""Fine-tuning from and to S3, with a driver killed between the files of a checkpoint."""

from __future__ import annotations

import io
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.cli.training import main
from tests.jobs.conftest import SECRET, TOKEN
from tests.jobs.faults import Fault, Faults, Proxy
from tests.jobs.finetuning import FAST, arguments, recordings, start, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
LONGEST_S = 240.0
RUN = {"max_steps": 24, "save_steps": 3, "valid_share": 0.2}
STRUCK = "step-00000009"


def upload(moto_s3: Any, folder: Path) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"labelled/{path.relative_to(folder).as_posix()}"
            moto_s3.client.upload_file(str(path), moto_s3.bucket, key)
    found: str = moto_s3.uri("labelled/list.jsonl")
    return found


def objects(moto_s3: Any, prefix: str) -> dict[str, bytes]:
    pages = moto_s3.client.get_paginator("list_objects_v2").paginate(Bucket=moto_s3.bucket, Prefix=prefix)
    keys = [held["Key"] for page in pages for held in page.get("Contents", ())]
    return {
        key.removeprefix(prefix): moto_s3.client.get_object(Bucket=moto_s3.bucket, Key=key)["Body"].read()
        for key in keys
    }


def losses(held: dict[str, bytes]) -> dict[tuple[int, str, str], float]:
    rows = pq.read_table(io.BytesIO(held["losses.parquet"])).to_pylist()
    found = {(row["step"], row["clip_id"], row["split"]): row["loss"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_killed_in_the_write_of_a_checkpoint(
    moto_s3: Any, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    corpus = upload(moto_s3, write_corpus(tmp_path / "corpus", recordings(20)).parent)
    features, log = moto_s3.uri("features"), tmp_path / "log"
    assert main(arguments(corpus, moto_s3.uri("undisturbed"), features=features, **RUN)) == 0

    place = f"/{moto_s3.bucket}/killed/checkpoints/{STRUCK}/optimiser.pt"
    proxy.faults = Faults(1.0, kinds=(Fault.STALL,), within=place, stall_s=LONGEST_S)
    told = arguments(corpus, moto_s3.uri("killed"), features=features, **RUN)
    command = start([*told, "--storage-endpoint-url", proxy.endpoint], log)
    deadline = time.monotonic() + LONGEST_S
    while not proxy.faults.done["STALL"]:
        assert command.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    command.kill()
    assert command.wait(LONGEST_S) == -signal.SIGKILL
    left = [key for key in objects(moto_s3, "killed/checkpoints/") if key.startswith(STRUCK)]
    assert f"{STRUCK}/optimiser.pt" in left
    assert f"{STRUCK}/complete.json" not in left

    assert main(told) == 0
    held, expected = objects(moto_s3, "killed/"), objects(moto_s3, "undisturbed/")
    assert losses(held).keys() == losses(expected).keys()
    assert losses(held) == pytest.approx(losses(expected), rel=1e-6)
    assert held.keys() >= {"transcribe/model.safetensors", "summary.json", "training.html"}
    names = [
        sorted(key for key in found if key.startswith("checkpoints/step-")) for found in (held, expected)
    ]
    assert names[0] == names[1]
    assert len([name for name in names[0] if name.endswith("complete.json")]) >= 2
    assert "lock.json" not in held

    for secret in (SECRET, TOKEN):
        written = {**held, **expected, **objects(moto_s3, "features/"), "log": log.read_bytes()}
        assert [key for key, data in written.items() if secret.encode() in data] == []
