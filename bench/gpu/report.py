"""The sections' JSON as one page: `python -m bench.gpu.report FOLDER --date DATE --output FILE.md`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SECTIONS = ("ceilings", "parity", "race", "profile", "actor", "drills", "training")


def report(found: dict[str, Row], date: str) -> str:
    """Markdown of what the sections found; what is missing or failed is said."""
    lines = ["# The encoder and a model actor on one GPU", ""]
    if any(section.get("smoke") for section in found.values()):
        lines += ["**A smoke run, everything tiny on a CPU: no number of it says anything.**", ""]
    machine = next((row for row in rows_of(found, "ceilings") if row.get("what") == "machine"), {})
    told = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "what" and value)
    lines += [f"{date}; {told or 'unknown machine'}; `bench/gpu.sh`.", ""]
    for name in SECTIONS:
        lines += _problems(name, found.get(name))
    ceiling = max(
        (row["tflops"] for row in rows_of(found, "ceilings") if row.get("what") == "bfloat16"), default=0
    )
    lines += _section(
        "What the card can do", [row for row in rows_of(found, "ceilings") if row is not machine]
    )
    lines += _race(rows_of(found, "race"), ceiling)
    lines += _section("Errors, relative to float32", rows_of(found, "parity"))
    lines += _section("Where the time goes", rows_of(found, "profile"))
    lines += _section("A model actor", rows_of(found, "actor"))
    lines += _section("Drills", rows_of(found, "drills"))
    lines += _section("A training step", rows_of(found, "training"))
    return "\n".join(lines)


def rows_of(found: dict[str, Row], name: str) -> list[Row]:
    rows: list[Row] = found.get(name, {}).get("rows", [])
    return rows


def _problems(name: str, section: Row | None) -> list[str]:
    if section is None:
        return [f"Section {name}: not run.", ""]
    if section["complete"]:
        return []
    reason = (section["error"] or "stopped before its end").strip().splitlines()[-1]
    return [f"Section {name}: not complete ({reason}).", ""]


def _race(rows: Sequence[Row], ceiling: float) -> list[str]:
    """A table for each mix: ours against the faster of the peer's, and against what the card can do."""
    lines: list[str] = []
    for mix in dict.fromkeys(row["mix"] for row in rows if "mix" in row):
        of_mix = [row for row in rows if row.get("mix") == mix]
        peers = [row["ms"] for row in of_mix if row["contender"].startswith("peer") and "ms" in row]
        shown = []
        for row in of_mix:
            told = {key: value for key, value in row.items() if key != "mix"}
            if "ms" in row:
                told["of the ceiling"] = f"{row['tflops'] / ceiling:.0%}" if ceiling else None
                told["times the peer"] = f"{min(peers) / row['ms']:.2f}" if peers else None
            shown.append(told)
        lines += _section(f"Race: {mix}", shown)
    return lines


def _section(title: str, rows: Sequence[Row]) -> list[str]:
    """Rows of the same fields share a table."""
    if not rows:
        return []
    lines = [f"## {title}", ""]
    for fields in dict.fromkeys(tuple(row) for row in rows):
        lines += [_line(fields), _line("---" for _ in fields)]
        lines += [_line(row.values()) for row in rows if tuple(row) == fields]
        lines.append("")
    return lines


def _line(cells: Iterable[Any]) -> str:
    shown = ("" if cell is None else str(cell).replace("|", "/").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the sections' JSON is")
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    files = {name: args.folder / f"{name}.json" for name in SECTIONS}
    found = {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.exists()}
    page = report(found, args.date)
    args.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
