"""How finished samples are scored, compared with real ones, shown and written."""
