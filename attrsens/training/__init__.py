"""Training of small reference networks: standard, adversarial, curvature-regularised.

A recipe is one function in one file of `recipes`: from the network and a batch to the loss that a step descends. What
is right of its `*` becomes flags, checks and a part of the model card; `COMMON` joins every recipe.

Everything random is keyed by (seed, purpose, step), every state that a step reads is in the checkpoint, and a
checkpoint replaces the last one by a rename: a run that was killed at any moment goes on from its last checkpoint and
ends in the same weights, bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

from attrsens.spec import Hyper, Param, Registry

COMMON = (
    Hyper("epochs", int, 30, Param("passes over the training images", min=1)),
    Hyper("batch", int, 128, Param("images a step", min=1)),
    Hyper("lr", float, 0.2, Param("largest learning rate of the one-cycle schedule", min=0)),
    Hyper("weight_decay", float, 5e-4, Param("of convolutions and matrices; norms and biases have none", min=0)),
    Hyper("smoothing", float, 0.0, Param("label smoothing", min=0, max=1)),
    Hyper("ema", float, 0.999, Param("decay of the average of weights that is kept; 0: the last ones", min=0, max=1)),
    Hyper("augment", bool, True, Param("random crops (padded by an eighth of the side) and flips")),
    Hyper("seed", int, 0, Param("of initial weights, order, augmentation and noise", min=0)),
)  # fmt: skip

RECIPES = Registry("recipe", "attrsens.training.recipes", COMMON, traits=("start",))
