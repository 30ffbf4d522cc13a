"""The trainer: recipes, loop, EMA, checkpoints."""
