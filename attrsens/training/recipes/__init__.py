"""Recipes: one function (network, batch) -> loss a file, registered by its decorator.

Traits: `start` says whether the recipe continues a trained network; `guard` names the recipe, with parameters, that
takes over if catastrophic overfitting is seen. A trait named like a parameter that joins every recipe is its default.
"""
