"""The verb `train`: what was asked for, the data and the network, the loop, and the files that come out."""

from attrsens.engine.train.request import Request, request
from attrsens.engine.train.verb import Stopped, Training, carry_out, train

__all__ = ["Request", "Stopped", "Training", "carry_out", "request", "train"]
