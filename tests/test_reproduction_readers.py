"""docs/reproduction: every reader of a report takes the numbers that its claim names, and with the claim's sign."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data

from attrsens.engine.inputs import expand

STD, LINF = "cifar10-std", "cifar10-linf"
LITE = {"model": "lite0"}
TWINS = "cifar10-std, cifar10-linf"
SEEDS = [f"small-{kind}-{seed}" for kind in ("std", "linf") for seed in range(3)]


def table(part, *rows):
    """A report of (quantity, place, values by image)."""
    reading = part("reading")
    return reading.Table(
        [reading.Row(q, {"model": STD, **place}, dict(enumerate(values))) for q, place, values in rows], {}
    )


def of(found, net=STD):
    return list(found[net].values())


def evidence(part, module, study, key, title):
    """The estimate of a claim from tables."""
    (found,) = (s for s in part(module).STUDIES if s.id == study)
    (claim,) = (c for c in found.claims if c.key == key)
    return claim.evidence[title]


def pair_row(quantity, here, there, values):
    """One similarity of two maps: whose, and to which."""
    (model, method), (to_model, to_method) = here, there
    place = {"model": model, "method": method, "to_model": to_model, "to_method": to_method, "role": "pair"}
    return quantity, place, values


def test_noise_is_read_from_the_clean_to_the_noisy_gradient_of_the_same_net(part):
    place = {"method": "grad", "to_method": "grad", "role": "pair"}
    rows = [
        ("spearman", place | {"noise": 0.0, "to_model": STD}, [0.1]),
        ("spearman", place | {"noise": 0.0, "to_model": LINF}, [0.7]),
        ("spearman", place | {"noise": 0.316, "to_model": STD}, [0.8]),
        ("ssim", place | {"noise": 0.0, "to_model": STD}, [0.9]),
    ]
    assert of(part("sam").clean_to_noisy({"cifar": table(part, *rows)}, [STD], "spearman")) == [0.1]


def test_a_pair_is_found_on_whichever_side_it_stands_and_never_twice(part):
    sam = part("sam")
    there, back = (LINF, "grad"), (STD, "gbp")
    rows = [pair_row("ssim", there, back, [0.4]), pair_row("ssim", back, (LINF, "gbp"), [0.9])]
    found = sam.pair({"cifar": table(part, *rows)}, "ssim", STD, LINF, {"method": "gbp"}, {"method": "grad"})
    assert found == {0: 0.4}
    rows.append(pair_row("ssim", back, there, [0.4]))
    with pytest.raises(LookupError, match="2 rows"):
        sam.pair({"cifar": table(part, *rows)}, "ssim", STD, LINF, {"method": "gbp"}, {"method": "grad"})


@pytest.mark.parametrize(
    ("study", "method", "plain", "against"),
    [
        ("sam-gbp-cross", "gbp", "grad", "grad"),
        ("sam-gi-ig", "ig", "gi", "gi"),
    ],
)
def test_drift_is_what_a_method_is_nearer_to_the_twin_than_the_plain_map(part, study, method, plain, against):
    values = {method: np.arange(8) / 10 + 0.2, plain: np.arange(8) / 10}
    rows = [pair_row("ssim", (STD, name), (LINF, against), v) for name, v in values.items()]
    rows += [pair_row("ssim", (STD, name), (STD, "edges"), 1 - v) for name, v in values.items()]
    drift = evidence(part, "sam", study, "drift", TWINS)
    found = drift({"cifar": table(part, *rows)})
    assert found.value == pytest.approx(0.2)
    assert (found.a, found.b) == (pytest.approx(0.55), pytest.approx(0.35))


def test_drift_with_the_sample_count_is_of_the_largest_less_the_smallest(part):
    rows = []
    for n, value in ((50, 0.2), (200, 0.9), (800, 0.5)):
        quantity, place, values = pair_row("ssim", (STD, "sg"), (LINF, "grad"), [value] * 6)
        rows.append((quantity, place | {"n": n}, values))
    found = evidence(part, "sam", "sam-sg-cross", "monotone", TWINS)({"cifar": table(part, *rows)})
    assert found.value == pytest.approx(0.3)


def test_robust_nets_cost_the_accuracy_of_their_first_ranks(part):
    rows = [("rank", {"method": "grad"}, [1, 1, 1, 2, 1, 1]), ("rank", {"model": LINF}, [1, 3, 2, 1, 5, 1])]
    found = evidence(part, "sam", "sam-acc", "cost", TWINS)({"cifar": table(part, *rows)})
    assert (found.a, found.b) == (pytest.approx(5 / 6), pytest.approx(0.5))


def referred(quantity, knob, values, model=STD, method="m"):
    """Similarities to the reference over the values of a knob, those of every value on six images."""
    place = {"model": model, "method": method, "role": "reference"}
    return [(quantity, place | {knob: k}, [v] * 6) for k, v in values.items()]


@pytest.mark.parametrize(
    ("study", "knob"),
    [
        ("sam-sg-n", "n"),
        ("sam-mp-blur", "blur_radius"),
        ("sam-lime-seed", "seed"),
        ("sam-lime-n", "n"),
        ("sam-lime-k", "segments"),
        ("sam-sp-l", "patch_size"),
    ],
)
def test_consistency_is_the_mean_over_a_knob_of_the_robust_net_less_the_regular(part, study, knob):
    rows = referred("ssim", knob, {1: 0.2, 2: 0.4}) + referred("ssim", knob, {1: 0.5, 2: 0.9}, LINF)
    rows += referred("l1", knob, {1: 9, 2: 9}) + referred("l1", knob, {1: 9, 2: 9}, LINF)
    found = evidence(part, "sam_knobs", study, "ssim", TWINS)({"cifar": table(part, *rows)})
    assert (found.value, found.a, found.b) == (pytest.approx(0.4), pytest.approx(0.7), pytest.approx(0.3))


def test_masks_are_told_as_how_many_times_the_robust_ones_are_alike(part):
    rows = referred("ssim", "steps", {10: 0.2, 450: 0.4}) + referred("ssim", "steps", {10: 0.5, 450: 0.7}, LINF)
    tables = {"cifar": table(part, *rows)}
    assert evidence(part, "sam_knobs", "sam-mp-iter", "ssim", TWINS)(tables).value == pytest.approx(2)
    settled = evidence(part, "sam_knobs", "sam-mp-iter", "settled", TWINS)(tables)
    assert (settled.value, settled.null) == (0.5, 0.9)
    rows = [
        row
        for name, v in (("spearman", 0.2), ("hog", 0.4), ("ssim", 0.9))
        for net, up in ((STD, 1), (LINF, 1.5))
        for row in referred(name, "seed", {1: v * up, 2: v * up}, net)
    ]
    found = evidence(part, "sam_knobs", "sam-mp-seed", "ssim", TWINS)({"cifar": table(part, *rows)})
    assert (found.value, found.b) == (pytest.approx(1.5), pytest.approx(0.5))


def test_the_distance_of_800_samples_is_that_of_the_regular_over_the_robust(part):
    rows = referred("l1", "n", {100: 1, 800: 6}) + referred("l1", "n", {100: 9, 800: 2}, LINF)
    found = evidence(part, "sam_knobs", "sam-sg-n", "l1", TWINS)({"cifar": table(part, *rows)})
    assert found.value == 3.0


def test_the_effect_of_a_knob_is_that_of_the_net_and_the_value(part):
    reading, point = part("reading"), {"ci95": [0.1, 0.3], "reason": None}
    effects = [
        {
            "group": {"model": net},
            "knob": knob,
            "n": 50,
            "points": [point | {"value": v, "effect": e + v} for v in (0.1, 0.3)],
        }
        for net, knob, e in ((STD, "spread", 1.0), (STD, "n", 2.0), (LINF, "spread", 3.0))
    ]
    found = part("sam_knobs").effect_of("spread", 0.1, STD)({"cifar": reading.Table([], {"effects": effects})})
    assert (found.value, found.ci95, found.n, found.kind) == (pytest.approx(1.1), (0.1, 0.3), 50, "mean")


def test_a_spread_over_methods_and_curves_is_that_of_the_regular_over_the_robust(part):
    knobs, rows = part("sam_knobs"), []
    for net, wide in ((STD, 3.0), (LINF, 1.0)):
        for i, (method, knob) in enumerate(knobs.TURNED.items()):
            for score, more in (("insertion", 1), ("deletion", 3)):
                rows += [
                    (score, {"model": net, "method": method, knob: k}, [10 * (i + 1) + s * wide * more * (i + 1)] * 6)
                    for k, s in ((1, -1), (2, 1))
                ]
    tables = {"cifar": table(part, *rows)}
    found = evidence(part, "sam_knobs", "sam-acc-45", "less", TWINS)(tables)
    assert (found.value, found.a, found.b) == (3.0, 15.0, 5.0)
    share = evidence(part, "sam_knobs", "sam-acc-45", "less, share", TWINS)(tables)
    assert (share.a, share.b) == (pytest.approx(0.6), pytest.approx(0.2))


def test_sliding_patch_is_held_to_the_lowest_of_the_other_three(part):
    knobs, rows = part("sam_knobs"), []
    for net in SEEDS:
        for method, value in (("sg", 0.9), ("sp", 0.3), ("lime", 0.5), ("mp", 0.7)):
            some = referred("ssim", knobs.TURNED[method], {1: value - 0.1, 2: value + 0.1}, net, method)
            swapped = {"lime": 0.2, "mp": -0.2}.get(method, 0)  # on half of the images another is the lowest
            rows += [(q, place, np.array(values) + swapped * (np.arange(6) % 2)) for q, place, values in some]
    found = knobs.patch_less_others({"cifar": table(part, *rows)})
    assert (found.a, found.b) == (pytest.approx(0.3), pytest.approx(0.5))


def test_a_knob_is_held_to_the_seed_within_an_image(part):
    def spreads(method, knob, wide):
        return [
            ("insertion", {"method": method, knob: k}, [s * wide + i for i in range(6)]) for k, s in ((1, -1), (2, 1))
        ]

    tables = {
        "knobs": table(part, *spreads("lime", "segments", 6.0), *spreads("mp", "blur_radius", 8.0)),
        "seeds": table(part, *spreads("lime", "seed", 2.0), *spreads("mp", "seed", 4.0)),
        "iterations": table(part, *spreads("mp", "steps", 12.0)),
    }
    keys = ("lime over seed", "mp over seed", "iterations over seed", "seeds")
    found = [evidence(part, "sam_knobs", "sam-hidden", key, STD)(tables).value for key in keys]
    assert found == [3.0, 2.0, 3.0, 0.5]


def test_neighbouring_patches_and_the_share_of_their_scores(part):
    rows = referred("ssim", "patch_size", {52: 0.8, 54: 0.6}, "lite0", "sp")
    for score, wide in (("insertion", 1.0), ("deletion", 3.0)):
        rows += [
            (score, {**LITE, "method": "sp", "patch_size": k}, [10 + s * wide] * 6) for k, s in ((52, -1), (54, 1))
        ]
    tables = {"lite0": table(part, *rows)}
    assert part("sam_knobs").neighbours(tables).value == pytest.approx(0.7)
    found = part("sam_knobs").share_of_mean(tables)
    assert (found.value, found.null) == (pytest.approx(0.2), 0.1)


def test_boundary_maps_that_are_nearer_count_as_nearer(part):
    rows = []
    for net, raw, cosine in ((STD, 8.0, 0.9), (LINF, 2.0, 0.3)):
        name, place = "alignment:normal=fc,measure=raw", {"model": net, "method": "grad"}
        rows += [(name, place, [raw] * 6), (f"{name} [cosine]", place, [cosine] * 6)]
        rows.append((name, place | {"method": "ig"}, [raw * raw] * 6))
    tables, title = {"cifar": table(part, *rows)}, TWINS
    assert evidence(part, "bnd", "bnd-align", "grad to bsm, raw", title)(tables).value == 4.0
    assert evidence(part, "bnd", "bnd-align", "ig to big, raw", title)(tables).value == 16.0
    found = evidence(part, "bnd", "bnd-align", "grad to bsm, cosine", title)(tables)
    assert found.value == pytest.approx(-0.6)  # robust less regular: the claim is that it is negative


def test_nearness_not_distance_is_correlated_with_localisation(part):
    rng = np.random.Generator(np.random.Philox(1))
    gaps = rng.normal(5, 1, 30)
    rows = [("alignment:normal=fc,measure=raw", {**LITE, "method": "grad"}, gaps)]
    rows += [(score, {**LITE, "method": "grad"}, 1 - sign * gaps) for score, sign in (("loc", 1), ("eg", -1))]
    tables = {"boxes": table(part, *rows)}
    read = [
        evidence(part, "bnd", "bnd-corr", f"grad to bsm, {score}", "lite0")(tables).value for score in ("loc", "eg")
    ]
    assert read == [pytest.approx(1), pytest.approx(-1)]


def test_localisation_is_that_of_the_boundarys_map_less_the_others(part):
    rows = [("eg", {**LITE, "method": m}, [v] * 6) for m, v in (("big", 0.9), ("grad", 0.5), ("ig", 0.6))]
    tables = {"boxes": table(part, *rows)}
    for other, value in (("grad", 0.4), ("ig", 0.3)):
        assert evidence(part, "bnd", "bnd-loc", f"big-{other}-eg", "lite0")(tables).value == pytest.approx(value)
    rows = [("eg", {**LITE, "method": "grad"}, [0.6] * 6), ("eg (floor)", {**LITE, "method": "grad"}, [0.4] * 6)]
    assert evidence(part, "bnd", "bnd-loc", "floor", "lite0")({"floor": table(part, *rows)}).value == pytest.approx(0.2)


def test_the_search_is_read_stage_by_stage(part):
    rows = []
    for net, scale in ((STD, 1.0), (LINF, 10.0)):
        for stage, v in (("pgd", 4.0), ("pgd + cw", 2.0), ("pgd + cw + apgd", 1.5)):
            place = {"model": net, "method": "grad", "stage": stage}
            rows += [("distance", place, [v * scale] * 6), ("found", place, [1, 1, 1, 0, 1, 1])]
    tables = {"cifar": table(part, *rows)}
    got = {
        key: evidence(part, "bnd", "bnd-search", key, title)(tables).value
        for key, title in (
            ("robust", TWINS),
            ("cw", STD),
            ("apgd", LINF),
            (f"success, {STD}", STD),
        )
    }
    assert got == {"robust": 10.0, "cw": 2.0, "apgd": 5.0, f"success, {STD}": pytest.approx(5 / 6)}


def test_the_boundarys_smoothgrad_is_held_to_smoothgrad_of_the_same_noise(part):
    bsg, smooth = ("bsg", "sigma"), ("grad+smooth", "smooth_radius")
    rows = []
    for (a, ka), (b, kb), sigma, l2, cosine in ((bsg, smooth, 0.05, 5.0, 0.8), (smooth, bsg, 0.5, 2.0, 0.6)):
        place = {"method": a, ka: sigma, "to_model": STD, "to_method": b, f"to_{kb}": sigma, "role": "pair"}
        rows += [("l2:scale=none", place, [l2] * 6), ("cosine", place, [cosine] * 6)]
    tables = {"cifar": table(part, *rows)}
    assert evidence(part, "bnd", "bnd-bsg", "falls", STD)(tables).value == 3.0
    assert evidence(part, "bnd", "bnd-bsg", "alike", STD)(tables).value == pytest.approx(-0.2)


def test_slopes_are_a_rung_and_have_the_sign_of_the_change(part):
    ladder = part("study").LADDER
    rows = []
    for rung, net in enumerate(ladder):
        rows.append(("alignment:normal=fc,measure=raw [cosine]", {"model": net, "method": "grad"}, [0.9 - 0.2 * rung]))
        rows.append(("faithfulness", {"model": net, "method": "grad"}, [0.3 + 0.1 * rung]))
    tables = {"cifar": table(part, *rows)}
    assert part("bnd").slope(tables, "grad to bsm")["ladder"][0] == pytest.approx(-0.2)
    assert part("hse").slope(tables, "faithfulness", "grad")["ladder"][0] == pytest.approx(0.1)


def test_attacks_are_of_images_whose_class_was_kept(part):
    rows = [("prediction_kept", {}, [1, 0]), ("target_distance", {}, [0.2, 0.3]), ("original_distance", {}, [0.8, 0.9])]
    smo, tables = part("smo"), {"delta": table(part, *rows)}
    assert of(smo.reached(tables, [STD], "delta")) == [0.2, None]
    assert of(smo.moved(tables, [STD], "delta")) == [0.8, None]


def test_class_sensitivity_is_of_images_whose_first_object_is_first(part):
    rows = [("rank", {**LITE, "method": "grad"}, [1, 2]), ("class_top20", {**LITE, "method": "sg"}, [0.7, 0.1])]
    tables = {"first": table(part, *rows), "second": table(part, *rows[1:])}
    assert of(part("smo").on_object(tables, "sg", "second"), "lite0") == [0.7, None]


@pytest.mark.parametrize(
    ("study", "key", "quantity"),
    [
        ("smo-gini-cifar", "at", "gini"),
        ("smo-infid-cifar", "at", "infidelity:normalize=true"),
        ("smo-cascade-cifar", "at", "cascade"),
    ],
)
def test_scores_of_twins_are_of_the_robust_less_the_regular(part, study, key, quantity):
    rows = [(quantity, {"model": net, "method": "grad"}, [v] * 6) for net, v in ((STD, 0.2), (LINF, 0.7))]
    found = evidence(part, "smo", study, key, TWINS)({"cifar": table(part, *rows)})
    assert found.value == pytest.approx(0.5)


def test_sparseness_is_told_by_where_absolute_values_are_taken(part):
    values = {("sg", "abs_sample"): 0.3, ("sg", "signed"): 0.4, ("grad", "abs_sample"): 0.5}
    rows = [("gini", {**LITE, "method": m, "sign": sign}, [v] * 6) for (m, sign), v in values.items()]
    tables = {"lite0": table(part, *rows)}
    for key, value in (("sg", -0.2), ("sg, signed", -0.1)):
        assert evidence(part, "smo", "smo-gini", key, "lite0")(tables).value == pytest.approx(value)


def test_resistance_to_attacks_is_what_a_map_moves_less(part):
    rows = [("prediction_kept", {"model": net}, [1] * 6) for net in (STD, LINF)]
    rows += [("original_distance", {"model": net}, [v] * 6) for net, v in ((STD, 0.9), (LINF, 0.2))]
    rows += [("target_distance", {"model": net}, [v] * 6) for net, v in ((STD, 0.1), (LINF, 0.7))]
    tables = {"delta": table(part, *rows)}
    keys = ("delta", "delta, moved")
    got = [evidence(part, "smo", "smo-attack-cifar", key, TWINS)(tables).value for key in keys]
    assert got == [pytest.approx(0.6), pytest.approx(-0.7)]
    rows = []
    for method, v in (("grad", 0.9), ("sg", 0.4)):
        place = {"method": method, "attack_eps": 0.1}
        rows += [("original_distance", place, [v] * 6), ("prediction_kept", place, [1] * 6)]
    found = evidence(part, "smo", "smo-attack-eps", "sg", STD)({"cifar": table(part, *rows)})
    assert found.value == pytest.approx(-0.5)


def test_the_small_claims_on_sensitivity(part):
    nets = part("hse").NETS
    rows = [("sensitivity_ratio", {"model": nets[0], "method": "grad"}, [5.0] * 6)]
    for net, up in zip(nets, (0.0, -0.1), strict=True):
        rows += [
            ("note objective", {"model": net, "method": m}, [v + up] * 6)
            for m, v in (("grad", 0.9), ("grad+smooth", 0.5))
        ]
    tables = {"mnist": table(part, *rows)}
    ratio = evidence(part, "hse", "hse-ratio", "ratio", nets[0])(tables)
    assert (ratio.value, ratio.null) == (5.0, 3.0)
    smooth = evidence(part, "hse", "hse-attack", "smooth", nets[0])(tables)
    robust = evidence(part, "hse", "hse-attack", "robust", "two nets of third parties")(tables)
    assert (smooth.value, robust.value) == (pytest.approx(-0.4), pytest.approx(-0.1))
    net, rows = "small-std-0", []
    for score, sign in (("max_sensitivity", -1), ("faithfulness", 1), ("deviation", 2)):
        rows += [(score, {"model": net, "smooth_radius": r}, [1 + sign * r] * 6) for r in (0.0, 0.05, 0.3, 0.5)]
    tables = {"cifar": table(part, *rows)}
    keys = ("sensitivity", "faithfulness", "deviation")
    got = [evidence(part, "hse", "hse-radius", key, net)(tables).value for key in keys]
    assert got == pytest.approx([-0.3, 0.3, 0.9])


def test_the_tables_of_sensitivity_hold_smoothed_to_plain_and_robust_to_regular(part):
    hse = part("hse")
    rows = [
        ("faithfulness", {"model": net, "method": m}, [v] * 6)
        for net, up in zip(hse.NETS, (0.0, 0.2), strict=True)
        for m, v in (("gi", 0.4 + up), ("gi+smooth", 0.5 + up))
    ]
    tables = {"mnist": table(part, *rows)}
    (study,) = (s for s in hse.STUDIES if s.id == "hse-mnist")
    claims = {c.key: c for c in study.claims}
    for key, value, published in (
        ("smooth, gi, faithfulness", 0.1, 0.523 - 0.448),
        ("robust, gi, faithfulness", 0.2, 0.735 - 0.448),
    ):
        (measure,) = claims[key].evidence.values()
        assert measure(tables).value == pytest.approx(value)
        assert claims[key].effect == pytest.approx(published)


def test_damage_is_the_mean_over_budgets_of_images_whose_class_is_always_kept(part):
    rows = []
    for eps, distances, kept in ((0.1, (0.2, 0.4), (1, 1)), (0.2, (0.6, 0.8), (1, 0))):
        place = {"method": "grad", "attack_eps": eps}
        rows += [("original_distance", place, distances), ("prediction_kept", place, kept)]
    found = part("smo").damage({"cifar": table(part, *rows)}, "cifar10-std", "grad")["cifar10-std"]
    assert found == {0: pytest.approx(0.4), 1: None}


def test_alignment_is_read_by_the_names_of_reports(part):
    names = ("alignment:normal=fc,measure=raw,search=a", "alignment:normal=fc,search=a", "alignment:to=agi,measure=raw")
    rows = [(name + end, {"method": m}, [i + 10 * j]) for i, name in enumerate(names) for j, end in
            enumerate(("", " [cosine]")) for m in ("grad", "ig")]  # fmt: skip
    bnd, tables = part("bnd"), {"cifar": table(part, *rows)}
    got = [
        bnd.distance(tables, ["cifar10-std"], title, measure)["cifar10-std"][0]
        for title in ("grad to bsm", "ig to agi")
        for measure in ("raw", "cosine")
    ]
    assert got == [0, 10, 2, 12]


def test_a_spread_is_the_deviation_over_a_knob_and_its_share_of_the_mean(part):
    rows = [("insertion", {"method": "sg", "n": n}, [v]) for n, v in ((1, 1.0), (2, 3.0))]
    knobs, tables = part("sam_knobs"), {"cifar": table(part, *rows)}
    assert knobs.spread("cifar", "insertion", "sg", "n")(tables, ["cifar10-std"])["cifar10-std"] == {0: 1.0}
    assert knobs.spread("cifar", "insertion", "sg", "n", share=True)(tables, ["cifar10-std"])["cifar10-std"] == {0: 0.5}


@needs_data
def test_common_images_are_those_of_the_list_to_the_byte(part, tmp_path):
    common = part("common")
    common.write(Path(DATA), tmp_path / "some.npz")
    some, every = (expand([str(path)]) for path in (tmp_path / "some.npz", Path(DATA, "cifar10-test.npz")))
    assert len(some) == common.COUNT == len(common.listed())
    for i, place in enumerate(common.listed()):
        one, other = some[i].load(), every[place].load()
        assert one.label == other.label
        assert one.sha256 == other.sha256


@needs_data
def test_common_images_are_the_first_that_every_net_gets_right(part):
    common, studies = part("common"), part("studies")
    assert common.find(Path(DATA), studies.NETS) == common.listed()
    commands = [r.command.split() for s in studies.STUDIES.values() for r in s.runs.values() if "{common}" in r.command]
    used = {word for words in commands for flag, word in pairwise(words) if flag == "--model"}
    names = part("study")
    assert used == {names.located(net) for net in (*names.ALL, *names.LADDER)}


def test_kept_numbers_are_of_as_many_images_as_were_asked_for(part):
    # a stage found nothing, or a mask is the same everywhere, which has no order
    fewer = ("bnd-search", "sam-mp-seed", "sam-acc-45", "sam-hidden")
    studies = part("studies")
    tried = 0
    for name, kept in studies.results().items():
        commands = [run["command"] for run in kept["runs"].values()]
        if all("{common}" in command for command in commands):
            (asked,) = {int(command.partition("--limit ")[2].split()[0]) for command in commands}
            found = {e["n"] for claim in kept["claims"].values() for e in claim.values()}
            assert max(found) == asked, name
            assert found == {asked} or name in fewer, name
            tried += 1
    assert tried > 20


def test_shares_have_wilsons_interval_even_where_all_are_alike(part):
    estimates = part("estimates")
    found = estimates.share({"a": dict.fromkeys(range(100), 1.0)}, 0.999)
    assert (found.value, found.n, found.null) == (1, 100, 0.999)
    assert found.ci95 == (pytest.approx(1 / (1 + 1.959964**2 / 100)), 1)
    assert estimates.verdict(found, None, None, within=0.03) == "inconclusive"
