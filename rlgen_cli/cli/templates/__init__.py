"""What `rlgen new` writes: an environment, an agent and a reward term that work as they are, to be changed."""
