"""Benchmarks of Lately and its peers: `python -m bench` writes bench/results.md."""
