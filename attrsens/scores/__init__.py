"""Scores: one function is one score.

Left of `*` a score takes a `Case`: one explanation, and all that is known of it. It returns a number or a `Finding`, or
it is a generator that first yields what it asks for (`Look`, `Maps`, `Beside`) and is sent the answers. It never runs
the network itself: the engine gathers what all scores of all maps of an image ask for, answers equal questions once,
and looks at images in full batches.
"""
