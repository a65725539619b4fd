"""What can be learned from each clip of a feature table, or why nothing can."""
