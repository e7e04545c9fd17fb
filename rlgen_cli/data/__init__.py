"""Datasets: embedded glyphs, MNIST-like files, any folder of images."""
