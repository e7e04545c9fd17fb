"""How finished samples are shown and written: pictures, music, text."""
