"""Wrappers around any method, one function each: (base, classifier view, image, target, *, hyperparameters) -> map.

`grad+smooth:n=50,radius=0.3` names one. `base(x)` is the raw map of the method inside, `base.many(images)` those of a
stack in as few passes as it knows how to. The decorator states `cost` in words. A wrapper that knows a faster way for
many images states it as `many`: (base, classifier view, images, target, *, hyperparameters) -> stacks of maps.

`counts` and `still` are as those of methods. One whose settings can share the base's maps states `over`, what may
differ, and `settings`: (base, classifier view, image, targets, points) -> iterator of results, as methods do (see
there), but the targets are equal.
"""
