"""Passthrough columns: types, merging, and values that fit nowhere."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.corpus.clips import Clip, read_table
from pipeline.corpus.columns import Passthrough, conform, conform_columns, infer, merge, plain, reserved_names


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
