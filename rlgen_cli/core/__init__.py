"""What every other package builds on: specs and protocols, trees of tensors, seeding, returns, checkpoint files."""
