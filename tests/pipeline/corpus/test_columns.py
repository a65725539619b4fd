"""Passthrough columns: types, merging, and values that fit nowhere."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.corpus.clips import Clip, read_table
from pipeline.corpus.columns import Passthrough, conform, conform_columns, infer, merge, plain, reserved_names
from pipeline.schema import output_schema


def test_types_of_json_values() -> None:
    samples = [
        {"text": "a", "n": 1, "x": 1, "flag": True, "mixed": 1, "tags": ["a"], "never": None, "big": 2**70},
        {"text": "b", "n": 2, "x": 0.5, "flag": None, "mixed": "one", "tags": [], "late": 3.0},
    ]
    assert infer(samples) == pa.schema(
        [
            ("text", pa.string()),
            ("n", pa.int64()),
            ("x", pa.float64()),
            ("flag", pa.bool_()),
            ("mixed", pa.string()),
            ("tags", pa.string()),
            ("never", pa.string()),
            ("big", pa.string()),
            ("late", pa.float64()),
        ]
    )


def test_merge_widens_numbers_and_turns_conflicts_into_strings() -> None:
    one = pa.schema([("text", pa.string()), ("a", pa.int32()), ("b", pa.int64()), ("c", pa.bool_())])
    two = pa.schema([("ref_text", pa.string()), ("a", pa.int64()), ("b", pa.float32()), ("c", pa.int64())])
    expected = [("ref_text", pa.string()), ("a", pa.int64()), ("b", pa.float64()), ("c", pa.string())]
    assert merge([one, two], reserved_names()) == pa.schema(expected)


def test_values_that_do_not_fit_go_to_extra() -> None:
    carried = Passthrough(
        pa.schema([("ref_text", pa.string()), ("n", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
    )
    values, extra = conform({"text": "hi", "n": True, "x": 3, "s": {"k": [1]}, "new": b"\x01"}, carried)
    assert values == {"ref_text": "hi", "x": 3.0, "s": '{"k": [1]}'}
    assert extra is not None
    assert json.loads(extra) == {"n": True, "new": "AQ=="}
    assert conform({"n": 2**63, "s": None}, carried) == ({}, '{"n": 9223372036854775808}')


def test_half_surrogates_do_not_reach_arrow() -> None:
    values, extra = conform({"s": "\ud800", "\udc00": 1}, Passthrough(pa.schema([("s", pa.string())])))
    assert values == {}
    assert extra is not None
    assert json.loads(extra) == {"s": "\ud800", "\udc00": 1}
    assert infer([{"\udc00": 1, "s": 1}]) == pa.schema([("s", pa.int64())])


def test_plain_types() -> None:
    nested = pa.large_list(pa.struct([("k", pa.dictionary(pa.int8(), pa.large_string()))]))
    assert plain(nested) == pa.list_(pa.struct([("k", pa.string())]))
    assert plain(pa.null()) == pa.string()


def test_columns_conform_as_records_do() -> None:
    carried = Passthrough(
        pa.schema([("a", pa.string()), ("b", pa.int64()), ("ref_text", pa.string()), ("absent", pa.bool_())])
    )
    columns = [
        ("text", pa.array(["x", "y"]).dictionary_encode()),
        ("a", pa.array([1, None], pa.int32())),
        ("b", pa.array([1.5, 2.0])),
    ]
    arrays, extra = conform_columns(columns, 2, carried)
    assert [array.to_pylist() for array in arrays] == [["1", None], [None, None], ["x", "y"], [None, None]]
    assert extra.to_pylist() == ['{"b": 1.5}', '{"b": 2.0}']


_TEXT = st.text(st.sampled_from("a1é\0\ud800"), max_size=3)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "a", "b", "ref_text"]), _JSON), max_size=4), st.data()
)
def test_no_value_breaks_a_table(samples: list[dict[str, object]], data: st.DataObject) -> None:
    carried = Passthrough(
        merge([infer(samples[: data.draw(st.integers(0, len(samples)))])], reserved_names())
    )
    table = read_table([Clip(f"s#{i}", "s", values=values) for i, values in enumerate(samples)], carried)
    assert table.num_rows == len(samples)
    for values, extra in zip(samples, table["extra"].to_pylist(), strict=True):
        kept = conform(values, carried)[0]
        lost = json.loads(extra) if extra else {}
        assert len(kept) + len(lost) == sum(value is not None for value in values.values())


def test_reserved_names_are_data_that_travels() -> None:
    sent = Passthrough(pa.schema([("ref_loudness", pa.float64())]), frozenset({"loudness"}))
    received = pickle.loads(pickle.dumps(sent))
    assert conform({"loudness": 0.5, "text": "x"}, received) == ({"ref_loudness": 0.5}, '{"text": "x"}')


def in_duckdb(path: Path, schema: pa.Schema, rows: list[dict[str, Any]], query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers on a table as a job writes it."""
    annotations = {"text": pa.string(), "label": pa.string()}
    pq.write_table(pa.Table.from_pylist(rows, output_schema(schema, annotations)), path)
    return duckdb.sql(query.format(table=f"'{path}'")).fetchall()


def test_names_of_the_tables_own_in_another_case(tmp_path: Path) -> None:
    """DuckDB does not tell `Text` from `text`, and would answer with the input's."""
    samples = [{"Text": "reference", "DURATION_S": 1.0, "Clip_ID": "a", "Error": "none", "Speaker": "s"}]
    carried = Passthrough(merge([infer(samples)], reserved_names()))
    assert carried.schema.names == ["ref_Text", "ref_DURATION_S", "ref_Clip_ID", "ref_Error", "Speaker"]
    values, extra = conform(samples[0], carried)
    assert extra is None
    row = {"clip_id": "x#1", "text": "transcript", "duration_s": 2.0, **values}
    query = (
        "SELECT text, ref_text, duration_s, ref_duration_s, clip_id, error, ref_error, speaker FROM {table}"
    )
    assert in_duckdb(tmp_path / "a.parquet", carried.schema, [row], query) == [
        ("transcript", "reference", 2.0, 1.0, "x#1", None, "none", "s")
    ]


def test_names_that_differ_in_case_are_one_column(tmp_path: Path) -> None:
    shards = [
        pa.schema([("Speaker", pa.string()), ("É", pa.int64())]),
        pa.schema([("speaker", pa.string()), ("é", pa.float64()), ("SPEAKER", pa.string())]),
        pa.schema([("Text", pa.string()), ("text", pa.string()), ("REF_TEXT", pa.string())]),
    ]
    carried = Passthrough(merge(shards, reserved_names()))
    assert carried.schema == pa.schema(
        [("Speaker", pa.string()), ("É", pa.float64()), ("ref_Text", pa.string())]
    )
    records = [{"Speaker": "a"}, {"speaker": "b", "SPEAKER": "c", "é": 1}, {"TEXT": "t", "text": "other"}]
    rows = [conform(record, carried) for record in records]
    assert [values for values, _ in rows] == [
        {"Speaker": "a"},
        {"Speaker": "b", "É": 1.0},
        {"ref_Text": "t"},
    ]
    assert [extra for _, extra in rows] == [None, '{"SPEAKER": "c"}', '{"text": "other"}']
    arrays, extra = conform_columns(
        [(name, pa.array([name])) for name in ("SPEAKER", "speaker", "text", "Ref_Text")], 1, carried
    )
    assert [array.to_pylist() for array in arrays] == [["SPEAKER"], [None], ["text"]]
    assert json.loads(extra[0].as_py()) == {"speaker": "speaker", "Ref_Text": "Ref_Text"}
    query = "SELECT speaker, ref_text FROM {table}"
    assert in_duckdb(tmp_path / "a.parquet", carried.schema, [rows[1][0], rows[2][0]], query) == [
        ("b", None),
        (None, "t"),
    ]


def test_the_spelling_that_a_table_has_stays() -> None:
    stored = Passthrough(pa.schema([("SPEAKER", pa.string()), ("Text", pa.string())]))
    values = {"speaker": "s", "Text": "an earlier version kept it so", "text": "t"}
    fitting, extra = conform(values, stored)
    assert fitting == {"SPEAKER": "s", "Text": "an earlier version kept it so"}
    assert extra == '{"text": "t"}'


def test_odd_names(tmp_path: Path) -> None:
    odd = ["", " ", "a\0b", "a\nb\"'`.", "sélène", "x" * 3000, "SELECT", "a b"]
    values = dict.fromkeys(odd, "v")
    carried = Passthrough(merge([infer([values])], reserved_names()))
    assert carried.schema.names == ["ref_", "ref_ ", *odd[3:]]
    fitting, extra = conform(values, carried)
    assert list(fitting) == carried.schema.names
    assert extra == '{"a\\u0000b": "v"}'
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in fitting)
    query = f"SELECT {names} FROM {{table}}"
    assert in_duckdb(tmp_path / "a.parquet", carried.schema, [fitting], query) == [("v",) * len(fitting)]
    for name in odd:
        arrays, extra = conform_columns([(name, pa.array(["v"]))], 1, carried)
        held = [array.to_pylist() for array in arrays].count(["v"])
        assert (held, extra.to_pylist()) == ((0, ['{"a\\u0000b": "v"}']) if "\0" in name else (1, [None]))


def test_fields_of_structs_that_sql_cannot_tell_apart(tmp_path: Path) -> None:
    """DuckDB answers `s.A` with `s.a`, and other readers refuse a name that is there twice."""
    struct = pa.array([{"a": 1, "A": 2}])
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    nested = pa.array([[{"deep": {"b": 1, "": 2}}]])
    columns = [("s", struct), ("twice", twice), ("nested", nested), ("fine", pa.array([{"a": 1, "b": 2}]))]
    schema = pa.schema([(name, plain(array.type)) for name, array in columns])
    assert schema.types[:3] == [pa.string()] * 3
    assert pa.types.is_struct(schema.types[3])
    carried = Passthrough(schema)
    arrays, extra = conform_columns(columns, 1, carried)
    row = {name: array[0].as_py() for name, array in zip(schema.names, arrays, strict=True)}
    assert row == {
        "s": '{"a": 1, "A": 2}',
        "twice": None,
        "nested": '[{"deep": {"b": 1, "": 2}}]',
        "fine": {"a": 1, "b": 2},
    }
    assert extra.to_pylist() == ['{"twice": [["a", 1], ["a", 2]]}']
    query = "SELECT s->>'$.A', s->>'$.a', fine.b FROM {table}"
    assert in_duckdb(tmp_path / "a.parquet", schema, [row], query) == [("2", "1", 2)]
