"""Places and credentials."""

from __future__ import annotations

import errno
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pydantic import SecretStr

from pipeline.errors import JobError
from pipeline.storage import (
    Storage,
    StorageError,
    StorageFile,
    StorageOptions,
    filesystems,
    place_errors,
    without_credentials,
)

STORAGE = Storage(StorageOptions())

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
    assert storage.read_bytes_or_none(str(tmp_path / "a")) is None
    assert storage.read_bytes_or_none(str(tmp_path / "sub/b")) == b"sub/b"
    storage.remove_empty_folder(str(tmp_path / "sub"))
    assert storage.exists(str(tmp_path / "sub/b"))
    storage.remove(str(tmp_path / "sub/b"))
    storage.remove_empty_folder(str(tmp_path / "sub"))
    assert os.listdir(tmp_path) == []


def test_an_error_travels_whole() -> None:
    error = StorageError("s3://bucket/x does not exist", missing=True)
    received = pickle.loads(pickle.dumps(error))
    assert (type(received), str(received), received.missing) == (StorageError, str(error), True)
    assert not pickle.loads(pickle.dumps(StorageError("s3://bucket/x: no"))).missing


def test_every_method_raises_one_error(tmp_path: Path) -> None:
    absent, file = str(tmp_path / "absent"), tmp_path / "file"
    file.write_bytes(b"x")
    for method in (STORAGE.open, STORAGE.read_bytes, STORAGE.info):
        with pytest.raises(StorageError, match=f"^{absent} does not exist$") as caught:
            method(absent)
        assert caught.value.missing
    inside = str(file / "x")
    for write in (STORAGE.write_bytes, STORAGE.create):
        with pytest.raises(StorageError) as caught:
            write(inside, b"")
        assert not caught.value.missing
    with pytest.raises(StorageError), STORAGE.writing(inside):
        pass
    for method in (STORAGE.open, STORAGE.exists, STORAGE.find, STORAGE.list_files):
        with pytest.raises(StorageError, match="nosuch://"):
            method("nosuch://x")


def test_a_place_is_named_as_the_user_gave_it(tmp_path: Path) -> None:
    with (
        pytest.raises(JobError, match=r"^--output there does not exist\.$"),
        place_errors("--output", "there"),
    ):
        STORAGE.read_bytes(str(tmp_path / "_run" / "lock.json"))
    with (
        pytest.raises(JobError, match=r"^--output nosuch://x: no filesystem for .*\.$"),
        place_errors("--output", "there"),
    ):
        STORAGE.exists("nosuch://x")


def test_a_read_that_fails_says_so_through_arrow_and_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise RuntimeError("connection lost")

    monkeypatch.setattr(LocalFileSystem, "open", lambda *_, **__: Failing(b"x" * 100))
    with pytest.raises(StorageError, match="/x: RuntimeError: connection lost"), STORAGE.open("/x") as file:
        io.BufferedReader(file).readline()
    with pytest.raises(StorageError, match="connection lost"), STORAGE.open("/x") as file:
        pq.ParquetFile(file)


def test_an_open_file_is_one_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3]}), path)
    with STORAGE.open(str(path)) as file:
        assert isinstance(file, StorageFile)
        assert file.size == path.stat().st_size
        assert pq.ParquetFile(file).read()["n"].to_pylist() == [1, 2, 3]
        assert (file.seek(4), file.tell(), len(file.read(3)), file.tell()) == (4, 4, 3, 7)
        file.seek(0)
        assert file.readall() == path.read_bytes()
    assert file.closed
    with STORAGE.writing(str(tmp_path / "b.parquet")) as file, pq.ParquetWriter(file, pa.schema([])):
        assert os.listdir(tmp_path) != ["a.parquet"]
        assert not (tmp_path / "b.parquet").exists()
    assert pq.read_table(tmp_path / "b.parquet").num_rows == 0


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half() -> None:
        with STORAGE.writing(str(tmp_path / "x")) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_storage_that_fails() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "wb", buffering=0) as full:
        file = StorageFile(full, lambda problem: StorageError(str(problem)))
        with pytest.raises(StorageError, match="No space left"):
            file.write(b"x")


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_many_that_create_at_once_one_succeeds(kind: str, tmp_path: Path, request: Any) -> None:
    home = str(tmp_path) if kind == "local" else request.getfixturevalue("bucket")
    storage = Storage(StorageOptions().with_environment())
    uri = f"{home}/sub/lock"
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: storage.create(uri, b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert storage.read_bytes(uri) == b"%d" % made.index(True)
    assert [file.rsplit("/", 1)[-1] for file in storage.list_files(f"{home}/sub")] == ["lock"]
    storage.remove(uri)
    assert storage.create(uri, b"again")


def test_storage_that_cannot_promise_to_create_does_its_best_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(filesystems, "OTHER_STORES", {"memory"})
    pipe = memory.pipe_file
    monkeypatch.setattr(memory, "pipe_file", lambda self, path, value, **_: pipe(self, path, value))
    assert STORAGE.create("memory://x/lock", b"mine")
    assert not STORAGE.create("memory://x/lock", b"theirs")
    assert STORAGE.read_bytes("memory://x/lock") == b"mine"
    assert "memory://x/lock: this storage cannot tell who created a file first" in caplog.text
    STORAGE.remove("memory://x/lock")


def test_created_once_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a mounted bucket, or a memory card."""
    monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted")))
    uri = str(tmp_path / "lock")
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: STORAGE.create(uri, b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert STORAGE.read_bytes(uri) == b"%d" % made.index(True)
    assert os.listdir(tmp_path) == ["lock"]


def test_listings(tmp_path: Path) -> None:
    for name in ("a/x.wav", "a/b/y.wav", "c.wav", "[d].wav"):
        STORAGE.write_bytes(str(tmp_path / name), b"12")
    found = [file.uri.removeprefix(f"{tmp_path}/") for file in STORAGE.find(str(tmp_path))]
    assert found == ["[d].wav", "a/b/y.wav", "a/x.wav", "c.wav"]

    def matches(pattern: str, below: bool = False) -> list[str]:
        files = STORAGE.glob(str(tmp_path / pattern), below=below)
        return [file.uri.removeprefix(f"{tmp_path}/") for file in files]

    assert matches("?*") == ["[d].wav", "c.wav"]
    assert matches("?", below=True) == ["a/b/y.wav", "a/x.wav"]
    assert [STORAGE.is_glob(str(tmp_path / name)) for name in ("*.wav", "[d].wav", "c.wav")] == [
        True,
        False,
        False,
    ]
    info = STORAGE.info(str(tmp_path / "c.wav"))
    assert (info.size, info.modified) == (2, (tmp_path / "c.wav").stat().st_mtime)
    assert (STORAGE.is_dir(str(tmp_path)), STORAGE.is_file(str(tmp_path))) == (True, False)
    (tmp_path / "link").symlink_to(tmp_path / "c.wav")
    places = [STORAGE.is_replaceable(str(tmp_path / name)) for name in ("c.wav", "absent", "link", "a")]
    assert places == [True, True, False, False]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "sick").mkdir(parents=True)
    listing = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("sick"):
            raise OSError(errno.EIO, "Input/output error", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    sick = f"{tmp_path}/deep/sick"
    for look in (
        lambda: STORAGE.list_files(sick),
        lambda: STORAGE.list_files(str(tmp_path), recursive=True),
        lambda: STORAGE.find(str(tmp_path)),
        lambda: STORAGE.glob(f"{tmp_path}/**"),
        lambda: STORAGE.glob(f"{tmp_path}/*", below=True),
    ):
        with pytest.raises(StorageError, match=r"Input/output error.*deep/sick"):
            look()
    assert STORAGE.list_files(str(tmp_path / "none")) == STORAGE.find(str(tmp_path / "none")) == []


def test_a_bucket_that_cannot_be_listed_is_not_an_empty_one(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EBUSY, "SlowDown")

    storage = Storage(StorageOptions().with_environment())
    monkeypatch.setattr("s3fs.S3FileSystem._ls", refuse)
    monkeypatch.setattr("s3fs.S3FileSystem._lsdir", refuse)
    for look in (
        lambda: storage.list_files(f"{bucket}/table/_run/shards"),
        lambda: storage.list_files(f"{bucket}/table", recursive=True),
        lambda: storage.find(f"{bucket}/in"),
        lambda: storage.glob(f"{bucket}/in/*.tar"),
    ):
        with pytest.raises(StorageError, match="SlowDown"):
            look()


def test_only_the_named_place_is_removed(bucket: str) -> None:
    storage = Storage(StorageOptions().with_environment())
    for name in ("t?ble/a", "tAble/a", "run[1]/x/y", "run1/a", "odd*/z"):
        storage.write_bytes(f"{bucket}/names/{name}", b"x")
    storage.remove(f"{bucket}/names/t?ble", recursive=True)
    storage.remove(f"{bucket}/names/run[1]", recursive=True)
    storage.remove(f"{bucket}/names/odd*/z")
    storage.remove(f"{bucket}/names/none*")
    left = storage.list_files(f"{bucket}/names", recursive=True)
    assert left == [f"{bucket}/names/run1/a", f"{bucket}/names/tAble/a"]
