"""One file per shard format: each reads a shard as a stream of small tables of `schema.read_schema`."""
