"""Attribution methods, one function each: (classifier view, image in its space, target, *, hyperparameters) -> map.

A method returns (C, H, W) or (H, W), or that and a dict of notes. Every module here is found by itself; the
parameters `output`, `space`, `sign` and `reduce` join every method and act through the view and after it. The
decorator states facts:

- `gradient`: whether gradients are taken; `cost` in words (F and B: images forward and backward);
- `output`: the default scalar; `draws="seed"`: the draws are the same for every image; `counts`: the hyperparameter
  that is the number of draws; `still`: from the parameters to whether nothing is drawn although there is a seed;
- `local=True`: the map depends on the gradient at the image alone; `inner=True`: on gradients that end at a layer;
- `unfit`: from the facts about a network (`models.census.Facts`) to why the method cannot explain it, or None;
- `many`: (view, images, target, *, hyperparameters) -> stacks of maps, where many images can share batches;
- `settings`: (view, image, targets, points) -> iterator of results, where settings can share passes. A point is a dict
  of every hyperparameter of its own; points differ only in those that `over` names, and ascend in them. With "target"
  in `over` their targets may differ, too, else they are equal. Results come in the order of the points, each with at
  most a batch of passes that only later ones need, and together cost what the dearest costs where the mathematics
  lets them. The function itself is the case of one point (`_settings.one`);
- `together`: (view, images, targets, their hashes, their zooms, points, *, width) -> results, for searches and
  optimisers that advance several images in one batch. Each image is a row with a list of points and gets a list of
  results: those of a row differ only in what `over` names, and are snapshots of one course; rows may also differ in
  what `beside` names. `width` is the shape of the batch, on which the last bits depend.

`over` comes with `settings` or `together`, `beside` with `together`; empty, they say that nothing may differ.
"""
