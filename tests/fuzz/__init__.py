"""Targets for fuzzing, one a module: `target(data)` reads `data` as a user's file and lets UserError alone pass;
`seeds()` gives valid files to begin with. `python -m tests.fuzz.run TARGET SECONDS` runs one."""
