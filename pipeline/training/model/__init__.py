"""One encoder with a head for each task, and the losses of a batch."""
