"""Many trainings by one command: their jobs, each a process of its own, and what came of them. Imports no torch."""
