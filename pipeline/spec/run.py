"""What any run over a corpus is told, whatever it writes of each clip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pipeline.spec.flat import FlatSpec
from pipeline.spec.parts import ClusterSpec, InputSpec, TableSpec


class RunSpec(FlatSpec):
    """Read a speech corpus: audio shards in, one Parquet row per clip out.

    Subclasses may ask more of its parts.

    Attributes:
        column_names: of the table, beside those that all tables and registered tasks have.
    """

    corpus: InputSpec
    compute: ClusterSpec
    table: TableSpec

    column_names: ClassVar[frozenset[str]] = frozenset()

    @property
    def makes(self) -> tuple[str, ...]:
        """What the table has of each clip, by name: all files of a table have the same."""
        raise NotImplementedError

    def output_settings(self) -> dict[str, Any]:
        """The settings that decide what is written."""
        return self._settings(self.parts())

    def _settings(self, parts: Iterable[str]) -> dict[str, Any]:
        settings = {}
        for part in parts:
            held = getattr(self, part)
            for name, field in type(held).model_fields.items():
                extra = field.json_schema_extra
                if isinstance(extra, dict) and extra.get("changes_output"):
                    settings[name] = getattr(held, name)
        return settings
