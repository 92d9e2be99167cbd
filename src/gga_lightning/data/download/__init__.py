"""Fetches, checks and unpacks the benchmarks."""
