"""Model wrappers, one function each: (network over normalised images, preprocessing, *, hyperparameters) -> network.

`lite0+softplus:beta=0.8` names one. Every module here is found by itself; parameters come from the signature. The
wrapping module keeps the network as `inner`. One that runs it several times an image says how often by an attribute
`copies`, runs it in batches of `chunk`, which the classifier sets, and clamps each copy itself where the preprocessing
says so. The trait `probe=True` has one pass over a grey image tried before any work, for wrappers that may have nothing
to do.
"""
