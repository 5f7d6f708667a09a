"""Continued pre-training of a language model on raw text, one module per step.

Importing this package is light: torch, transformers and unsloth load when a function needs them.

    from cptlib import checks, corpus, lora, machine, memory, models, scoring, streaming, training
    from cptlib.recipe import Recipe
"""

__version__ = "0.2.0"
