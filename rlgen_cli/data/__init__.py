"""Datasets of pictures (embedded glyphs, MNIST-like files, any folder of images), their splits, and token sequences."""
