"""Benchmarks against named peers. `bench.router` is the router's."""
