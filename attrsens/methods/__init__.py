"""Attribution methods, one function each: (classifier view, image in its space, target, *, hyperparameters) -> map.

A method returns (C, H, W) or (H, W), or that and a dict of notes. Every module here is found by itself; the
parameters `output`, `space`, `sign` and `reduce` join every method and act through the view and after it. The
decorator states facts:

- `gradient`: whether gradients are taken; `cost` in words (F and B: images forward and backward);
- `output`: the default scalar; `draws="seed"`: the draws are the same for every image;
- `local=True`: the map depends on the gradient at the image alone; `inner=True`: on gradients that end at a layer;
- `unfit`: from the facts about a network (`models.census.Facts`) to why the method cannot explain it, or None;
- `many`: (view, images, target, *, hyperparameters) -> stacks of maps, where many images can share batches;
- `together`: (view, images, targets, their hashes, their zooms, *, hyperparameters) -> results, for searches and
  optimisers that advance several images in one batch.
"""
