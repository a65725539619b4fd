"""Places and credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions, path_of, uri_of, without_credentials

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "env-key",
    "AWS_SECRET_ACCESS_KEY": "env-secret",
    "AWS_SESSION_TOKEN": "env-token",
    "AWS_REGION": "eu-north-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "http://general",
    "AWS_ENDPOINT_URL_S3": "http://s3",
}


def secrets(options: StorageOptions) -> list[str | None]:
    return [value and value.get_secret_value() for value in (options.key, options.secret, options.token)]


def test_environment_fills_what_is_unset() -> None:
    filled = StorageOptions().with_environment(ENVIRONMENT)
    assert secrets(filled) == ["env-key", "env-secret", "env-token"]
    assert (filled.region, filled.endpoint_url) == ("eu-north-1", "http://s3")


def test_a_given_pair_is_never_mixed_with_the_environments() -> None:
    given = StorageOptions(key=SecretStr("mine"), secret=SecretStr("also mine"), region="mars")
    filled = given.with_environment(ENVIRONMENT)
    assert secrets(filled) == ["mine", "also mine", None]
    assert (filled.region, filled.endpoint_url) == ("mars", "http://s3")


def test_empty_variables_count_as_unset() -> None:
    assert secrets(StorageOptions().with_environment({"AWS_ACCESS_KEY_ID": ""})) == [None, None, None]


def test_redact_takes_out_every_secret() -> None:
    options = StorageOptions().with_environment(ENVIRONMENT)
    text = options.redact("key env-key, secret env-secret (env-secret), token env-token, region eu-north-1")
    assert text == "key ***, secret *** (***), token ***, region eu-north-1"
    assert StorageOptions(secret=SecretStr("")).redact("plain") == "plain"


def test_secrets_do_not_show_in_the_options_themselves() -> None:
    options = StorageOptions().with_environment(ENVIRONMENT)
    assert "env-" not in repr(options) + options.model_dump_json()


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "https://user:secret@host/x.wav"])
def test_credentials_in_a_uri_are_refused_unrepeated(uri: str) -> None:
    with pytest.raises(JobError, match="carries credentials") as caught:
        Storage(StorageOptions()).normalise(uri)
    assert "secret@" not in str(caught.value)
    assert without_credentials(uri) == uri.split("://")[0] + "://***@" + uri.split("@")[1]


def test_one_spelling_per_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    normalise = Storage(StorageOptions()).normalise
    expected = str(tmp_path / "x")
    assert {normalise(given) for given in ("x", "./x", "x/", "~/x", expected, f"file://{expected}")} == {
        expected
    }
    assert normalise("s3://bucket/x") == "s3://bucket/x"


def test_path_and_uri_are_inverse() -> None:
    for uri in ("s3://bucket/a/b", "/a/b", "memory://a"):
        assert uri_of(uri, path_of(uri)) == uri


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (FileNotFoundError("x"), "does not exist"),
        (PermissionError("x"), "is forbidden"),
        (OSError("An error occurred (403): Forbidden"), "is forbidden"),
        (RuntimeError("about env-secret"), "RuntimeError: about ***"),
    ],
)
def test_explain(problem: Exception, said: str) -> None:
    storage = Storage(StorageOptions().with_environment(ENVIRONMENT))
    explained = storage.explain("s3://bucket/x", problem)
    assert "s3://bucket/x" in explained
    assert said in explained
    assert "env-secret" not in explained


def test_small_files(tmp_path: Path) -> None:
    storage = Storage(StorageOptions())
    for name in ("a", "sub/b"):
        storage.write_bytes(str(tmp_path / name), name.encode())
    assert storage.read_bytes(str(tmp_path / "sub/b")) == b"sub/b"
    assert storage.list_files(str(tmp_path)) == [str(tmp_path / "a")]
    assert storage.list_files(str(tmp_path), recursive=True) == [str(tmp_path / "a"), str(tmp_path / "sub/b")]
    assert storage.list_files(str(tmp_path / "absent")) == []
    storage.remove(str(tmp_path / "a"))
    storage.remove(str(tmp_path / "a"))
    assert not storage.exists(str(tmp_path / "a"))
