"""Datasets of token sequences: melodies, MIDI files, chorales, text, and SeqGAN's oracle."""
