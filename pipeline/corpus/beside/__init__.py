"""What lies beside shards and tells of their clips: references, speakers, segments. A file a format."""
