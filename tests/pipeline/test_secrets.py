"""Credentials in URIs: whatever characters they have, nobody reads them."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from jobs.cli import read_spec
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers import READERS
from pipeline.errors import JobError
from pipeline.export.spec import ExportSpec
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.speakers.spec import SpeakersSpec
from pipeline.spec import AnnotateSpec, TranscribeSpec
from pipeline.spec.parts import CorpusSpec
from pipeline.storage import Storage, StorageError, StorageOptions, redact, without_credentials
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

SECRET = "wJalrXUtn/K7MDENG+bPx@Rfi#CY?EX%2FAMPLE:KEY&q=1"
# Secrets are told from the rest by letters that nothing else here has.
SECRETS = st.text(st.sampled_from("ŽŠČ/+@#?%&=:.*$!~-_0123456789"), min_size=1).map(lambda text: f"Ž{text}Ž")
HIDDEN_IN = st.sampled_from(
    [
        "s3://KEY:{}@bucket/corpus",
        "s3://KEY:{}@bucket/a@b.wav",
        "s3a://KEY:{}@bucket/x",
        "https://user:{}@host/x.wav",
        "http://user:{}@127.0.0.1:9000",
        "https://user:{}@host:8443/x?y=z",
        "https://user:8080/{}@host/x",
        "https://host/x.wav?X-Amz-Algorithm=A&X-Amz-Signature={}&X-Amz-Credential=c",
        "https://host/x.wav?{}",
        "https://host/x.wav?sig={}",
        "https://host/x.wav#token={}",
        "https://account.blob.core.windows.net/c/x.wav?sv=2024-08-04&se=2026&sr=b&sp=r&sig={}",
        "s3://bucket/x.wav?X-Amz-Signature={}",
        "gs://bucket/x.wav?X-Goog-Signature={}",
        "s3://bucket/x.wav?token={}",
        "s3://bucket/x.wav?sig={}",
        "simplecache::s3://KEY:{}@bucket/x",
        "simplecache::https://host/x?{}",
        "ray://user:{}@head:10001",
    ]
)


@given(uri=HIDDEN_IN, secret=SECRETS)
def test_no_character_of_a_secret_shows(uri: str, secret: str) -> None:
    whole = uri.format(secret)
    for text in (
        without_credentials(whole),
        redact(f"cannot reach {whole} today"),
        redact(f"ClientError: {whole!r} and '{quote(secret, safe='')}' and {secret}", [secret], whole),
        Storage(StorageOptions()).explain(whole, ValueError(f"no such place as <{whole}>")),
    ):
        assert not set(text) & set("ŽŠČ"), text
        assert "***" in text


@pytest.mark.parametrize(
    "uri",
    [
        "/data/a@b:c/x?token=1.wav",
        "corpus/what?",
        "s3://bucket/a@b/c:d@e.wav",
        "s3://bucket/what?",
        "s3://bucket/what?versionId=abc",
        "s3://bucket/keyword=x?author=y",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/mine/x@y.wav",
        "https://host:8443/a/@user/x.wav".replace("@", "~"),
        "https://host/a@b.wav",
        "http://127.0.0.1:9000",
        "http://[::1]:9000/x",
        "ray://head:10001",
        "language = 'en' and url like 'https://a:b@c%'",
    ],
)
def test_what_is_no_secret_stays(uri: str) -> None:
    assert without_credentials(uri) == uri


def test_what_is_left_of_a_uri() -> None:
    assert without_credentials("s3://KEY:secret/of#mine") == "s3://***"
    assert without_credentials("https://ghp_token@host/x.wav") == "https://***@host/x.wav"
    assert without_credentials(f"s3://KEY:{SECRET}@bucket/x.wav") == "s3://***@bucket/x.wav"
    assert without_credentials("https://host/a/x.wav?X-Amz-Signature=1") == "https://host/a/x.wav?***"
    assert without_credentials("https://u:p@host/x#t") == "https://***@host/x#***"


PLACES = [
    f"s3://KEY:{SECRET}@bucket/x",
    f"https://user:{SECRET}@host/x",
    f"https://host/x?X-Amz-Signature={SECRET}",
]
JOB = {"input": ["in"], "output": "out", "transcribe": "m"}
FIELDS: list[tuple[type[BaseModel], dict[str, Any], str]] = [
    *((AnnotateSpec, JOB, name) for name in ("input", "output", "transcribe", "embed", "ray_address")),
    *((AnnotateSpec, JOB, name) for name in ("reference_rttm", "lexicon", "language_model", "vad")),
    *((ExportSpec, {"table": "t", "format": "ctm", "output": "o"}, name) for name in ("table", "output")),
    *(
        (SpeakersSpec, {"table": "t", "trials": "x"}, name)
        for name in ("table", "output", "trials", "scores")
    ),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("declaration", "least", "name"), FIELDS)
@pytest.mark.parametrize("way", ["flag", "file", "environment", "code"])
def test_options_with_credentials_are_refused_unrepeated(
    way: str, declaration: type[BaseModel], least: dict[str, Any], name: str, place: str, tmp_path: Path
) -> None:
    values = {**least, name: [place] if name == "input" else place}
    if way == "code":
        with pytest.raises(ValidationError, match=r"carries credentials|module:Class") as wrong:
            declaration(**values)
        assert SECRET not in str(wrong.value) + repr(wrong.value)
        return
    (tmp_path / "job.yaml").write_text(json.dumps(values if way == "file" else least))
    arguments = ["--config", str(tmp_path / "job.yaml")]
    environment = {}
    if way == "flag":
        arguments += [f"--{name.replace('_', '-')}", place]
    if way == "environment":
        (tmp_path / "job.yaml").write_text(json.dumps({key: least[key] for key in least if key != name}))
        environment[f"W2VBERT_{name.upper()}"] = place
    with pytest.raises(JobError, match=r"carries credentials|module:Class") as caught:
        read_spec(declaration, arguments, program="job", environment=environment)
    assert SECRET not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("endpoint", ["https://user:{}@host", "https://{}@host", "https://host/?token={}"])
def test_endpoints_with_credentials_are_refused_unrepeated(endpoint: str) -> None:
    url = endpoint.format(SECRET)
    with pytest.raises(ValidationError, match="carries credentials") as wrong:
        StorageOptions(endpoint_url=url)
    assert SECRET not in str(wrong.value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        with pytest.raises(
            JobError, match=rf"^{name}: https://\*\*\*@?.*carries credentials|{name}"
        ) as caught:
            StorageOptions().with_environment({name: url})
        assert SECRET not in str(caught.value)
    StorageOptions(endpoint_url="http://127.0.0.1:9000")


@pytest.mark.parametrize(
    "text",
    [
        "storage:\n  secret: '{}\n",
        'storage:\n  secret: "{}\n  x',
        "storage:\n  secret: *{}\n",
        "storage:\n  secret: !{} x\n",
        "storage: {{secret: {}, [}}\n",
        "storage:\n  secret: [{}]\n",
        "storage:\n  secrte: {}\n",
        "storage: {}\n",
        "secret: {}\n",
        "- {}\n",
        "{}\n",
        "\t{}",
    ],
)
def test_a_wrong_file_is_explained_without_its_secret(tmp_path: Path, text: str) -> None:
    secret = "wJalrXUtnFEMIK7MDENG"
    (tmp_path / "job.yaml").write_text(text.format(secret))
    with pytest.raises(JobError) as caught:
        read_spec(TranscribeSpec, ["--config", str(tmp_path / "job.yaml")], program="job", environment={})
    assert secret not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert secret not in shown


@pytest.mark.parametrize("argument", ["--storage-secret={}", "--secret={}"])
def test_an_unknown_argument_is_named_without_its_value(argument: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        read_spec(TranscribeSpec, ["--input", "x", argument.format(SECRET)], program="job", environment={})
    told = capsys.readouterr().err
    assert SECRET not in told
    assert "unknown argument" in told


@pytest.mark.parametrize(
    ("declaration", "arguments"),
    [
        (TranscribeSpec, ["--output", "o", "--model", "m", "s3://KEY:{}@bucket/x"]),
        (ExportSpec, ["--output", "o", "--format", "srt", "s3://KEY:{}@bucket/x"]),
        (ExportSpec, ["table", "s3://KEY:{}@bucket/x"]),
    ],
)
def test_a_positional_argument_is_named_without_its_secret(
    declaration: type[BaseModel], arguments: list[str], capsys: Any
) -> None:
    with pytest.raises((SystemExit, JobError)) as caught:
        read_spec(declaration, [each.format(SECRET) for each in arguments], program="job", environment={})
    told = capsys.readouterr().err + str(caught.value)
    assert SECRET not in told
    assert "s3://***@bucket/x" in told


@pytest.mark.parametrize("values", [{"secret": [SECRET]}, {"key": {"x": SECRET}}, {"unknown": SECRET}])
def test_errors_of_options_hide_what_was_given(values: dict[str, Any]) -> None:
    for declare in (lambda: CorpusSpec(input=["x"], storage=values), lambda: StorageOptions(**values)):
        with pytest.raises(ValidationError) as caught:
            declare()
        assert SECRET not in str(caught.value) + repr(caught.value)


def test_the_public_part_of_a_spec_has_no_secret() -> None:
    options = StorageOptions(key=SecretStr(SECRET), secret=SecretStr(SECRET), token=SecretStr(SECRET))
    spec = TranscribeSpec(
        input=["in"], output="out", model="m", storage=options, where=f"url = 'https://host/x?sig={SECRET}'"
    )
    assert "wJalr" not in json.dumps(spec.public())
    assert SECRET not in repr(spec.corpus.storage) + spec.corpus.storage.model_dump_json() + repr(
        Storage(options)
    )
    received = pickle.loads(pickle.dumps(Storage(options)))
    assert received.options.secret.get_secret_value() == SECRET
    assert SECRET not in repr(received)


def test_what_storage_said_is_no_cause_where_it_tells_a_secret() -> None:
    storage = Storage(StorageOptions(secret=SecretStr(SECRET)))
    for told, kept in ((f"signed with {SECRET}", False), ("the disk is full", True)):
        with pytest.raises(StorageError) as caught, storage._explained("s3://bucket/x"):
            raise RuntimeError(told)
        shown = "".join(traceback.format_exception(caught.value))
        assert (SECRET in shown, told in shown) == (False, kept)


SIGNED = [
    f"http://127.0.0.1:1/x.wav?X-Amz-Credential=AKIA&X-Amz-Signature={quote(SECRET, safe='')}",
    f"https://user:{quote(SECRET, safe='')}@127.0.0.1:1/x.wav",
    f"http://127.0.0.1:1/x.wav?sig={SECRET}",
    f"s3://KEY:{SECRET}@bucket/x.wav",
    f"nosuch://user:{SECRET}@host/x.wav",
    f"https://user:{SECRET}@host/x.wav",
    f"http://127.0.0.1:1/\ud800.wav?sig={SECRET}",
]


def test_audio_that_a_manifest_signs(tmp_path: Path) -> None:
    """A signed URL is data, and is asked for; of what signs it the row has nothing."""
    manifest = tmp_path / "list.jsonl"
    lines = [json.dumps({"audio_filepath": uri, "speaker": f"s{n}"}) for n, uri in enumerate(SIGNED)]
    manifest.write_text("\n".join(lines))
    endpoint = StorageOptions(endpoint_url="http://127.0.0.1:1", anonymous=True)
    storage = Storage(endpoint)
    shard = Shard(str(manifest), "list.jsonl", "manifest", manifest.stat().st_size, "1")
    columns = pa.schema([("audio_filepath", pa.string()), ("speaker", pa.string())])
    (clips,) = READERS["manifest"].tables(shard, storage, Passthrough(columns))
    assert clips["source"].to_pylist()[:-1] == SIGNED[:-1]
    featurizer = Featurizer(
        SeamlessM4TFeatureExtractor(), storage, columns, WindowPlan(2000, 200), FeatureOptions()
    )
    (table,) = featurizer(clips)
    rows = table.to_pylist()
    assert [row["speaker"] for row in rows] == [f"s{n}" for n in range(len(SIGNED))]
    assert rows[0]["audio_filepath"] == "http://127.0.0.1:1/x.wav?***"
    assert [row["error"]["stage"] for row in rows] == ["read"] * len(rows)
    for row in rows:
        assert row["error"]["message"]
        assert "wJalr" not in repr(row), row
    assert "***@bucket/x.wav carries credentials in the URI" in rows[3]["error"]["message"]
