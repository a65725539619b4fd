"""The output table as the files that other tools read; a file per family of formats (docs/export.md)."""
