"""What a person sees of a run: progress, losses by clip, a page, the card of a checkpoint."""
