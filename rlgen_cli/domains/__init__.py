"""What can be made: pictures on a canvas, samples of a generator that is steered, music and text."""
