"""Faults that are done to runs on purpose: kills, signals, damaged files, full disks, two processes in one place.

`make test-faults` runs all of them (a quarter of an hour on one core) and writes docs/results/faults.json and faults.md;
tests/test_faults.py is the part that belongs to `make test`. A trial is a process that `forks.Forks` starts in a folder
of its own; `inject.Fault` says what is done to it and when; `runs` holds the small runs, and compares what they leave.
"""
