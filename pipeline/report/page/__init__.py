"""The page: everything that a browser needs, in one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline import html, strict_json
from pipeline.report.audio import Sound
from pipeline.report.charts import Section
from pipeline.report.clips import KINDS, LONGEST_S
from pipeline.report.table import Report, Row
from pipeline.reports.summary import format_hours

_HERE = Path(__file__).parent
_ENDS = re.compile(r"<(/script|!--)", re.IGNORECASE)
_SETTINGS_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        clips: as `clips.described` tells of them.
        sounds: by clip id.
    """

    report: Report
    sections: Sequence[Section]
    clips: Sequence[Row]
    sounds: Mapping[str, Sound]


def write_page(page: Page, uri: str) -> int:
    """Writes it whole or not at all; its size in bytes."""
    data = render(page).encode()
    page.report.storage.write_bytes(uri, data)
    return len(data)


def render(page: Page) -> str:
    """The HTML, without any of the storage's credentials."""
    storage = page.report.storage
    charts = [chart for section in page.sections for chart in section.charts]
    data = {
        "charts": [chart.spec for chart in charts],
        "clips": [{**clip, "sound": _told(page.sounds[clip["id"]])} for clip in page.clips],
        "kinds": {name: kind.name for name, kind in KINDS.items()},
        "groups": page.report.groups,
        "longest": LONGEST_S,
    }
    return html.render(
        _HERE,
        storage,
        name=page.report.name,
        sections=page.sections,
        kinds=_kinds(page),
        data=_script(strict_json.dumps(html.redacted(data, storage))),
        audio={
            place: base64.b64encode(opus).decode()
            for place, clip in enumerate(page.clips)
            if (opus := page.sounds[clip["id"]].opus) is not None
        },
        clips=page.clips,
        runs=_runs(page.report),
        facts=_facts(page.report),
        settings=_settings(page.report.spec),
        vega=_script(_vega()),
    )


def _vega() -> str:
    """Vega, Vega-Lite and vega-embed in one module, as `vl-convert` brings them along."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _script(text: str) -> Markup:
    """Inside a script element, which ends at the first `</script` of whatever it holds."""
    return Markup(_ENDS.sub(r"<\\\1", text))


def _told(sound: Sound) -> dict[str, Any]:
    return {"inside": sound.opus is not None, "href": sound.href, "note": sound.note}


def _kinds(page: Page) -> dict[str, tuple[str, int]]:
    """The kinds of clips that are listed: what they are called, and how many there are."""
    counts = {name: sum(name in clip["kinds"] for clip in page.clips) for name in KINDS}
    return {name: (KINDS[name].name, clips) for name, clips in counts.items() if clips}


def _runs(report: Report) -> list[list[str]]:
    """What each run did."""
    return [
        [
            run["run_id"],
            f"{run['clips']:,}" if "clips" in run else "–",
            format_hours(run["hours"]) if "hours" in run else "–",
            f"{run['wall_s']:,.0f} s" if run.get("wall_s") is not None else "–",
            f"{run['rtfx']:,.1f} ×" if run.get("rtfx") is not None else "–",
        ]
        for run in report.runs
    ]


def _facts(report: Report) -> list[tuple[str, str]]:
    models = [
        (task, f"{model.get('name', '')}, {str(model.get('digest', ''))[:19]}")
        for task, model in report.models.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    files = f"{len(report.footers):,} files of {sum(footer.rows for footer in report.footers):,} rows"
    drawn = f"seed {report.seed}"
    return [("table", f"{report.name}: {files}"), *models, ("versions", versions), ("samples", drawn)]


def _settings(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those that say something."""
    return [
        (name, str(value)[:_SETTINGS_SHOWN])
        for name, value in spec.items()
        if value not in (None, [], {}, "", False)
    ]
