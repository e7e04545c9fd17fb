"""What decides: encoders, recurrent parts, distributions over actions, Q-networks, and the anchor to a prior."""
