"""From YAML to objects: where configs lie, how classes are built from them, and what a saved one may name."""
