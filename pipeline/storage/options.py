"""How to reach s3://: what is set, what the environment tells, and credentials kept out of texts."""

from __future__ import annotations

import os
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
