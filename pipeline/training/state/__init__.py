"""The state of a run: the weights with all that belongs to them, and how they lie in storage."""
