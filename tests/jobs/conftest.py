"""What the tests of whole jobs share beside the session's Ray cluster: an S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.conftest import ROOT
from tests.jobs.faults import Proxy, proxy_before

SECRET = "wJalrXUtnFEMI-not-to-be-seen-bPxRfiCY"
TOKEN = "FwoGZXIvYXdzE-not-to-be-seen-either"


@dataclass(frozen=True)
class S3:
    """A server that speaks S3 over HTTP, with one empty bucket."""

    endpoint: str
    bucket: str
    client: Any

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(scope="module")
def moto_s3() -> Iterator[S3]:
    """moto over real HTTP; the AWS_* environment leads to it while the fixture lives."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_SESSION_TOKEN", TOKEN)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        client = boto3.client("s3")
        client.create_bucket(Bucket="corpora")
        yield S3(endpoint, "corpora", client)
    server.stop()


@pytest.fixture
def proxy(moto_s3: S3) -> Iterator[Proxy]:
    """Before the server; a test says which requests fail."""
    with proxy_before(moto_s3.endpoint) as held:
        yield held


@pytest.fixture(scope="module")
def demo_in_bucket(moto_s3: S3) -> str:
    """The demo's corpus, beside the audio that its manifest names."""
    demo = ROOT / "demo"
    for folder in ("corpus", "audio"):
        for file in sorted(path for path in (demo / folder).rglob("*") if path.is_file()):
            key = f"demo/{file.relative_to(demo).as_posix()}"
            moto_s3.client.upload_file(str(file), moto_s3.bucket, key)
    return moto_s3.uri("demo/corpus")
