"""Networks, and the choice of precision and memory layout."""
