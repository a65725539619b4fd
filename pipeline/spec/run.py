"""What any run over a corpus is told, whatever it writes of each clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.spec.parts import ClusterSpec, InputSpec, TableSpec
from pipeline.storage import PublicOptions, redact


class RunSpec(PublicOptions):
    """Read a speech corpus: audio shards in, one Parquet row per clip out.

    It is composed of parts, of which subclasses may ask more. Keyword arguments are flat, those of all parts
    beside each other.

    Attributes:
        column_names: of the table, beside those that all tables and registered tasks have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: InputSpec
    compute: ClusterSpec
    table: TableSpec

    column_names: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **values: Any) -> None:  # for type checkers: the fields of the parts are arguments too
        super().__init__(**values)

    @property
    def makes(self) -> tuple[str, ...]:
        """What the table has of each clip, by name: all files of a table have the same."""
        raise NotImplementedError

    @classmethod
    def parts(cls) -> dict[str, type[BaseModel]]:
        """The fields of the spec that are parts."""
        return {
            name: field.annotation
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        for part, kind in cls.parts().items():
            flat = {name: given.pop(name) for name in kind.model_fields if name in given}
            given[part] = {**dict(given.get(part, {})), **flat}
        return given

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

    def public(self) -> dict[str, Any]:
        """The whole spec, flat, for metadata and summaries: never a credential."""
        secrets = {"corpus": {"storage": {"key", "secret", "token"}}}
        flat: dict[str, Any] = {}
        for name, value in self.model_dump(mode="json", exclude=secrets).items():
            flat |= value if name in self.parts() else {name: value}
        # Places have no credentials, but a condition may name one.
        return {name: redact(value) if isinstance(value, str) else value for name, value in flat.items()}
