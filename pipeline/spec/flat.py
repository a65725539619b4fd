"""Specs that are composed of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.storage import PublicOptions, redact

_SECRETS = {"storage": {"key", "secret", "token"}}


class FlatSpec(PublicOptions):
    """A spec whose parts are models of their own. Wherever a user gives or sees their fields, as keyword
    arguments too, these stand flat beside each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            names = [field.alias or name for name, field in kind.model_fields.items()]
            flat = {name: given.pop(name) for name in names if name in given}
            given[part] = {**dict(given.get(part, {})), **flat}
        return given

    def public(self) -> dict[str, Any]:
        """The whole spec, flat, for metadata and summaries: never a credential."""
        parts = self.parts()
        secrets = {part: _SECRETS for part, kind in parts.items() if "storage" in kind.model_fields}
        flat: dict[str, Any] = {}
        for name, value in self.model_dump(mode="json", by_alias=True, exclude=secrets).items():
            flat |= value if name in parts else {name: value}
        # Places have no credentials, but a condition may name one.
        return {name: redact(value) if isinstance(value, str) else value for name, value in flat.items()}
