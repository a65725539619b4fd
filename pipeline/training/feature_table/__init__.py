"""The feature table: what the encoder hears of each clip, computed once, as Parquet."""
