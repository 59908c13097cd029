"""Statistics of independent images, in numbers only: intervals, paired differences, corrections, verdicts."""

from attrsens.engine.inference.clusters import Clustered, cluster_bootstrap
from attrsens.engine.inference.intervals import FEWEST, Interval, Studentised, mean_interval, wilson
from attrsens.engine.inference.pairs import Paired, paired
from attrsens.engine.inference.significance import (
    holm,
    rank_biserial,
    sign_flip_p,
    signed_rank_p,
    smallest_detectable,
)
from attrsens.engine.inference.variation import Marginal, Within, marginal, within_image
from attrsens.engine.inference.verdicts import Change, Claim, Equivalence, claim, equivalence

__all__ = [
    "FEWEST",
    "Change",
    "Claim",
    "Clustered",
    "Equivalence",
    "Interval",
    "Marginal",
    "Paired",
    "Studentised",
    "Within",
    "claim",
    "cluster_bootstrap",
    "equivalence",
    "holm",
    "marginal",
    "mean_interval",
    "paired",
    "rank_biserial",
    "sign_flip_p",
    "signed_rank_p",
    "smallest_detectable",
    "wilson",
    "within_image",
]
