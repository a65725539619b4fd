"""Packs of examples in an order that is a function of (seed, epoch), and their features, augmented."""
