"""Formats that show what is said along the time of a recording."""
