"""Sweeps: knobs and their values (`axes`), the calls they mean (`design`), how far maps move (`mover`), and what that
says of the knobs (`tables`)."""
