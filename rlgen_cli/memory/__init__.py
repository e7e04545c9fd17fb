"""What agents remember of their episodes."""
