"""docs/report.md says what the report does."""

from __future__ import annotations

import re

from pipeline.report.clips import LONGEST_S
from pipeline.report.spec import ReportSpec
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
FOLDER = ROOT / "pipeline" / "report" / "page"
HELP = (FOLDER / "template.html").read_text(encoding="utf-8")


def test_flags_are_those_of_the_command() -> None:
    flags = {
        flag.replace("-", "_")
        for flag in re.findall(r"jobs/report\.py (.*)", PAGE)
        for flag in re.findall(r"--([\w-]+)", flag)
    }
    assert flags <= ReportSpec.model_fields.keys()
    assert f"`--audio-mb` ({ReportSpec.model_fields['audio_mb'].default:g})" in PAGE
    assert LONGEST_S == 300
    assert "more than five minutes" in " ".join(PAGE.split())


def test_keys_are_those_of_the_page() -> None:
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    shown = {
        "↑": "ArrowUp",
        "↓": "ArrowDown",
        "←": "ArrowLeft",
        "→": "ArrowRight",
        "Space": " ",
        "Esc": "Escape",
    }
    rows = re.findall(r"^\| (`.*`) \| .* \|$", PAGE, re.MULTILINE)
    keys = [key for row in rows for key in re.findall(r"`(.+?)`", row)]
    assert keys == ["/", "↑", "↓", "Enter", "Space", "←", "→", "Esc"]
    assert re.findall(r"<kbd>(.+?)</kbd>", HELP) == keys
    for key in keys:
        assert key == "Enter" or f'"{shown.get(key, key)}"' in script  # a button's own key


def test_the_search_compares_what_the_list_has() -> None:
    script = (FOLDER / "list.js").read_text(encoding="utf-8")
    compared = set(re.findall(r"`(\w+)[<>]=?\d", PAGE)) | {"speakers"}
    assert compared == {"wer", "confidence", "seconds", "score", "speakers"}
    for name in compared:
        assert f'key: "{name}"' in script
