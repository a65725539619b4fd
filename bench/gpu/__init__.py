"""What one GPU makes of the encoder and of a model actor: `bench/gpu.sh` runs the sections in turn."""
