"""What each task makes of the encoder's frames: model outputs per window, columns per clip."""
