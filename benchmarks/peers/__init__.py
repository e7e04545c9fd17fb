"""One room for each library that benchmarks/vs_sb3.py trains on the same task."""
