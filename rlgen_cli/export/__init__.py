"""Files a person opens: PNG, GIF, SVG."""
