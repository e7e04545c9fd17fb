"""How samples of each kind are shown and written to files."""
