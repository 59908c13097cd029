"""Model wrappers, one function each: (network over normalised images, preprocessing, *, hyperparameters) -> network.

`lite0+softplus:beta=0.8` names one. Every module here is found by itself; parameters come from the signature. A wrapper
that runs the network several times an image says how often by an attribute `copies`, and runs it in batches of
`chunk`, which the classifier sets.
"""
