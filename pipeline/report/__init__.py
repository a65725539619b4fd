"""A finished table as one page to look at and listen to (docs/report.md)."""
