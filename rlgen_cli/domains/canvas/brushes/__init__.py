"""What an action does to a canvas: one file a brush, each with its own action space and its own settings."""
