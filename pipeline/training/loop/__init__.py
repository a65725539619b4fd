"""The steps of a run on one worker, its state, and how it starts and goes on."""
