"""The `rlgen` command; what shows help and lists imports no torch."""
