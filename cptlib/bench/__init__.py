"""Recipes measured side by side: `measure` times them, `profile` looks inside a step, `results` reads what was measured."""
