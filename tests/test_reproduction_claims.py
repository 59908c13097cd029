"""docs/reproduction: in a world where the papers are right every claim holds, and where they are wrong none does."""

import zlib

import numpy as np
import pytest

IMAGES = 12
VALUES = {"steps": [10, 450], "attack_eps": [0.1, 0.2]}  # of a knob; [1, 2] of all others
EXACT = ("rank", "found", "prediction_kept")
LADDER = ["small-std-0", "small-l2-0.25", "small-l2-0.5", "small-l2-1"]


def robust(net):
    return "linf" in net or "l2" in net or net == "mnist-cnn-a-adv"


def first(net, to):
    """The side of a pair that a report has: the regular net's; of two seeds of one regime the one before."""
    return not robust(net) and (robust(to) or (int(net[-1]) + 1) % 3 == int(to[-1]))


class World:
    """A report whose numbers follow a rule: `rule(quantity, net, where, run, hi)`, where hi(true) is high and hi(false)
    is low if the paper is right, and the other way round if it is wrong."""

    def __init__(self, rule, run, right):
        self.rule, self.run, self.right = rule, run, right

    def hi(self, condition, high=0.7, low=0.3):
        return high if condition == self.right else low

    def __call__(self, quantity, nets, **where):
        return {net: dict(enumerate(self.numbers(quantity, net, where))) for net in nets}

    def numbers(self, quantity, net, where):
        mean = self.rule(quantity, net, where, self.run, self.hi)
        if quantity in EXACT:
            return [float(v) for v in np.broadcast_to(mean, IMAGES)]
        key = zlib.crc32(repr((self.run, quantity, net, sorted(where.items(), key=str))).encode())
        return mean + np.random.Generator(np.random.Philox(key)).normal(0, 0.003 * abs(mean), IMAGES)

    def settings(self, quantity, nets, name, **where):
        return {v: self(quantity, nets, **where, **{name: v}) for v in VALUES.get(name, [1, 2])}


def of_pair(value):
    """A rule for pairs, which stand on one side only."""

    def rule(quantity, net, where, run, hi):
        if not first(net, where["to_model"]):
            raise LookupError
        return value(quantity, net, where, run, hi)

    return rule


def of_outline(quantity, net, where, run, hi):
    if where["method"] == "edges":
        raise LookupError
    return hi(robust(net))


def of_bsg(quantity, net, where, run, hi):
    if where["method"] != "bsg":
        raise LookupError
    return hi(where["sigma"] == (0.05 if quantity.startswith("l2") else 0.5))


def turned(high):
    """Scores that move with the second value of a knob, by as much as `high` says."""

    def rule(quantity, net, where, run, hi):
        if quantity == "ssim":
            return hi(where["method"] != "sp")
        second = any(where.get(k) == VALUES.get(k, [1, 2])[1] for k in where if k != "method")
        return 2.0 + (0.5 * high(net, run, hi) if second else 0.0)

    return rule


def of_search(quantity, net, where, run, hi):
    return 1.0 if quantity == "found" else hi(robust(net)) * hi(where["stage"] == "pgd")


def of_gini(quantity, net, where, run, hi):
    return 0.5 if where["method"] == "grad" else hi("softplus" in where["method"])


def of_classes(quantity, net, where, run, hi):
    if quantity == "rank":
        return 1
    return hi(True, 0.9, 0.1) if run == "first" else 0.5 if where["method"] == "grad" else hi(False)


def of_attack(quantity, net, where, run, hi):
    if quantity == "prediction_kept":
        return 1
    return hi(robust(net)) + 0.2 * hi("delta" in run) if quantity == "target_distance" else hi(not robust(net))


def of_twins(quantity, net, where, run, hi):
    if quantity == "gini":
        return 0.5 if net == "lite0" else hi("softplus" in net)
    return hi(net == "lite0")


def of_sensitivity(quantity, net, where, run, hi):
    """Of the tables of HSE: smoothing helps and so does robust training."""
    steady = (robust(net), "smooth" in where["method"])
    return sum(hi(part == (quantity == "faithfulness")) for part in steady)


def on_ladder(quantity, net, where, run, hi):
    up = 1 if quantity == "faithfulness" else -1
    return 1 + hi(True, 0.1, -0.1) * up * LADDER.index(net)


def of_radius(quantity, net, where, run, hi):
    radius = where["smooth_radius"]
    return hi({"max_sensitivity": radius == 0, "faithfulness": radius != 0, "deviation": radius == 0.5}[quantity])


WORLDS = {  # study: how its numbers come out
    "sam-acc": lambda q, net, w, run, hi: np.where(np.arange(IMAGES) < hi(robust(net), 1, 11), 1, 2),
    "sam-noise": lambda q, net, w, run, hi: hi(robust(net)),
    "sam-outline": of_outline,
    "sam-gbp-cross": of_pair(lambda q, net, w, run, hi: hi(w["method"] == "gbp")),
    "sam-gi-ig": of_pair(lambda q, net, w, run, hi: hi(w["method"] == "ig")),
    "sam-sg-cross": of_pair(lambda q, net, w, run, hi: 0.5 if w["method"] == "grad" else hi(w["n"] == 800)),
    "sam-sg-n": lambda q, net, w, run, hi: hi(robust(net) == (q == "ssim")),
    "sam-mp-iter": lambda q, net, w, run, hi: hi(robust(net), 0.95),
    "sam-mp-seed": lambda q, net, w, run, hi: hi(robust(net)),
    "sam-mp-blur": lambda q, net, w, run, hi: hi(robust(net)),
    "sam-lime-seed": lambda q, net, w, run, hi: hi(not robust(net)),
    "sam-lime-n": lambda q, net, w, run, hi: hi(not robust(net)),
    "sam-lime-k": lambda q, net, w, run, hi: hi(not robust(net)),
    "sam-sp-l": lambda q, net, w, run, hi: hi(not robust(net)),
    "sam-acc-45": turned(lambda net, run, hi: hi(not robust(net))),
    "sam-hidden": turned(lambda net, run, hi: hi(run != "seeds")),
    "bnd-align": lambda q, net, w, run, hi: hi(not robust(net)),
    "bnd-loc": lambda q, net, w, run, hi: hi("floor" not in q) if run == "floor" else hi(w["method"] == "big"),
    "bnd-search": of_search,
    "bnd-bsg": of_bsg,
    "bnd-completeness": lambda q, net, w, run, hi: hi(True, 0.001, 1.0),
    "bnd-dose": on_ladder,
    "smo-gini": of_gini,
    "smo-gini-cifar": lambda q, net, w, run, hi: hi(robust(net)),
    "smo-infid": lambda q, net, w, run, hi: hi(w["method"] == "grad"),
    "smo-infid-cifar": lambda q, net, w, run, hi: hi("std" in net),
    "smo-cascade": lambda q, net, w, run, hi: hi(w["method"] != "grad"),
    "smo-cascade-cifar": lambda q, net, w, run, hi: hi("std" not in net),
    "smo-class": of_classes,
    "smo-attack-cifar": of_attack,
    "smo-attack-eps": lambda q, net, w, run, hi: 1 if q in EXACT else hi(w["method"] == "grad"),
    "smo-posthoc": of_twins,
    "hse-mnist": of_sensitivity,
    "hse-cifar": of_sensitivity,
    "hse-levels": on_ladder,
    "hse-ratio": lambda q, net, w, run, hi: hi(True, 5, 1),
    "hse-attack": of_sensitivity,
    "hse-radius": of_radius,
}
ELSEWHERE = {"sam-sg-std", "sam-sp-s", "bnd-corr"}  # test_reproduction_readers.py
TOLD = ("the same, towards another std seed",)  # evidence that stands beside and is not the claim's


def words(part, name, right):
    """(claim, whose nets) -> the verdict in a world where the papers are right, or wrong."""
    study = part("studies").STUDIES[name]
    tables = {run: World(WORLDS[name], run, right) for run in study.runs}
    return {
        (claim.key, whose): part("page")._word(claim, measure(tables))
        for claim in study.claims
        if not claim.cannot and not equality(claim)
        for whose, measure in claim.evidence.items()
        if whose not in TOLD
    }


def equality(claim):
    """Something is as large: a world turned round says the same."""
    return claim.within is not None or claim.key == "apgd"


@pytest.mark.parametrize("name", WORLDS)
def test_claims_hold_where_the_paper_is_right(part, name):
    found = words(part, name, right=True)
    assert found
    assert {key: word for key, word in found.items() if word not in ("holds", "in direction")} == {}


@pytest.mark.parametrize("name", WORLDS)
def test_claims_do_not_hold_where_the_paper_is_wrong(part, name):
    found = words(part, name, right=False)
    assert {key: word for key, word in found.items() if word != "does not hold"} == {}


def test_every_claim_is_tried(part):
    tested = {s.id for s in part("studies").STUDIES.values() if any(c.evidence and not c.cannot for c in s.claims)}
    assert tested == set(WORLDS) | ELSEWHERE
