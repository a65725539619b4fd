"""Fine-tuning: labelled shards and a checkpoint in, better checkpoints out.

The way of a clip: `feature_table` (audio to features, once) -> `examples` (what can be learned of each clip,
or why not) -> `batches` (packs of examples, augmented) -> `model` (losses) -> `loop` (steps, on each worker).
"""
