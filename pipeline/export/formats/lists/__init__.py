"""Formats in which a clip, a word or a turn is a line."""
