"""Each file is a section: `python -m bench.gpu.sections.NAME --output FILE.json [--smoke]`."""
