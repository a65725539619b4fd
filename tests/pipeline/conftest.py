"""What the tests of the rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.storage import failures


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that fails is asked again at once."""
    monkeypatch.setattr(failures, "DELAYS_S", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket of a server that speaks S3 over HTTP; the AWS_* environment leads there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="locks")
        yield "s3://locks"
    server.stop()
