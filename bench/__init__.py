"""Benchmarks: `./granule bench` lists them, `./granule bench NAME` runs one; what they found is in `results/`."""
