"""Pages that need no server and no network: one look, and nobody's credentials in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from pipeline.storage import Storage

_HERE = Path(__file__).parent


class Tile(NamedTuple):
    """A number that one looks at first."""

    name: str
    value: str
    note: str = ""


def render(folder: Path, storage: Storage, **values: Any) -> str:
    """`template.html` of a folder, without any of the storage's credentials.

    It may include the other files of its folder, and `base.css`.
    """

    def public(value: Any) -> Any:
        plain = isinstance(value, str) and not isinstance(value, Markup)
        return storage.options.redact(value) if plain else value

    # `finalize` sees a text before it is escaped, which would hide a secret with an ampersand.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _HERE]),
        autoescape=True,
        finalize=public,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("template.html").render(**values)


def redacted(value: Any, storage: Storage) -> Any:
    """The same texts, lists and mappings without the storage's credentials, for JSON inside a page."""
    match value:
        case str():
            return storage.options.redact(value)
        case Mapping():
            return {key: redacted(item, storage) for key, item in value.items()}
        case list() | tuple():
            return [redacted(item, storage) for item in value]
    return value
