"""How to reach s3://: what is set, what the environment tells, and credentials kept out of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, SecretStr

from pipeline.errors import JobError
from pipeline.storage.secrets import PublicOptions, redact, refusal, without_credentials

_FROM_ENVIRONMENT = {
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "key": ("AWS_ACCESS_KEY_ID",),
    "secret": ("AWS_SECRET_ACCESS_KEY",),
    "token": ("AWS_SESSION_TOKEN",),
}
_SECRETS = ("key", "secret", "token")


def as_hosts(given: Any) -> list[str]:
    """Names of servers; several may stand in one text, between commas.

    Raises:
        ValueError: what is none, such as a URL.
    """
    texts = given if isinstance(given, list) else [given]
    hosts = [host.strip().lower() for text in texts for host in str(text).split(",")]
    for host in hosts:
        if not re.fullmatch(r"[\w.-]+(:\d+)?|[\da-f:]*:[\da-f:]*|\[[\da-f:]+\](:\d+)?", host):
            raise ValueError(f"{host!r} must be a server's name, such as a.example or a.example:8080")
    return hosts


class StorageOptions(PublicOptions):
    """How to reach s3://; what is unset comes from the usual AWS_* environment, profiles and roles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_url: str | None = Field(None, description="S3 endpoint, for MinIO, Ceph, R2 and the like")
    region: str | None = Field(None, description="S3 region")
    key: SecretStr | None = Field(None, description="S3 access key id (better left to the environment)")
    secret: SecretStr | None = Field(
        None, description="S3 secret access key (better left to the environment)"
    )
    token: SecretStr | None = Field(None, description="S3 session token (better left to the environment)")
    anonymous: bool = Field(False, description="read public buckets without credentials")

    def with_environment(self, environment: Mapping[str, str] = os.environ) -> StorageOptions:
        """Fills unset fields from AWS_* variables, so that workers on other nodes get the driver's access.

        Raises:
            JobError: credentials inside the URL of the endpoint.
        """
        update: dict[str, Any] = {}
        for field, names in _FROM_ENVIRONMENT.items():
            # Key, secret and token belong together: never mix a pair from two sources.
            if getattr(self, field) is not None or (field in _SECRETS and self.key is not None):
                continue
            name = next((name for name in names if environment.get(name)), None)
            if name is not None:
                value = environment[name]
                if field not in _SECRETS and without_credentials(value) != value:
                    raise JobError(f"{name}: {refusal(value)}.")
                update[field] = SecretStr(value) if field in _SECRETS else value
        return self.model_copy(update=update)

    def redact(self, text: str, uri: str = "") -> str:
        """`text` without any of the credentials, those of `uri` and of any other URI in it among them."""
        given: list[SecretStr | None] = [getattr(self, field) for field in _SECRETS]
        return redact(text, [secret.get_secret_value() for secret in given if secret is not None], uri)

    def s3_arguments(self) -> dict[str, Any]:
        """As s3fs takes them."""
        client = {"region_name": self.region} if self.region else {}
        return {
            "key": self.key.get_secret_value() if self.key else None,
            "secret": self.secret.get_secret_value() if self.secret else None,
            "token": self.token.get_secret_value() if self.token else None,
            "anon": self.anonymous,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": client,
            "config_kwargs": {"connect_timeout": 10, "retries": {"max_attempts": 5, "mode": "standard"}},
            # Several processes write the same places: a cached listing would be a lie.
            "use_listings_cache": False,
        }
