"""Which knob matters: effects of hyperparameters and of the seed on maps and scores, in numbers only (science 2).

A study's Gram matrices give `cosines`; these the effects, the seed's effect and the verdicts.
"""

from attrsens.engine.knobs.effects import knob_effects, seed_effect
from attrsens.engine.knobs.ranks import (
    Agreement,
    Convention,
    RankStability,
    Scores,
    SpecificationCurve,
    krippendorff_alpha,
    metric_agreement,
    rank_stability,
    specification_curves,
    tau_b,
)
from attrsens.engine.knobs.results import (
    KnobEffect,
    KnobVerdict,
    MethodRank,
    Point,
    Reach,
    ScoreEffect,
    SeedEffect,
    Share,
    Stability,
)
from attrsens.engine.knobs.scores import score_effect, stability
from attrsens.engine.knobs.shares import Design, PracticeRange, radial_design, variance_shares
from attrsens.engine.knobs.study import Cosines, ImageGram, Knob, Setting, Study, cosines, position
from attrsens.engine.knobs.verdicts import knob_verdicts, method_verdicts

__all__ = [
    "Agreement",
    "Convention",
    "Cosines",
    "Design",
    "ImageGram",
    "Knob",
    "KnobEffect",
    "KnobVerdict",
    "MethodRank",
    "Point",
    "PracticeRange",
    "RankStability",
    "Reach",
    "ScoreEffect",
    "Scores",
    "SeedEffect",
    "Setting",
    "Share",
    "SpecificationCurve",
    "Stability",
    "Study",
    "cosines",
    "knob_effects",
    "knob_verdicts",
    "krippendorff_alpha",
    "method_verdicts",
    "metric_agreement",
    "position",
    "radial_design",
    "rank_stability",
    "score_effect",
    "seed_effect",
    "specification_curves",
    "stability",
    "tau_b",
    "variance_shares",
]
