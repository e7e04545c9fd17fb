"""What runs left, as a page, as figures, and live."""
