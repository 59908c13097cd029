"""Attacks on explanations: small changes of an image that move its map while the prediction stays."""
