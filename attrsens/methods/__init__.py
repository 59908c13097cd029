"""Attribution methods, one function each: (classifier view, image in its space, target, *, hyperparameters) -> map.

A method returns (C, H, W) or (H, W), or that and a dict of notes. Every module here is found by itself; the
parameters `output`, `space`, `sign` and `reduce` join every method and act through the view and after it. The
decorator states `gradient`, whether gradients are taken, `cost` in words (F and B: images forward and backward), and
may set `output`, the default scalar; `draws="seed"` where the draws are the same for every image; `local=True` for maps that depend on the gradient at the image alone; and `unfit`,
a function that says of the facts about a network (`models.census.Facts`) why the method cannot explain it, or None.
"""
