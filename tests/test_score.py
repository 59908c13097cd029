"""`attrsens score` as a whole: what is shared, kept, calibrated, counted and written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from test_api import picture
from toys import SmallNet, small

import attrsens
from attrsens.engine.judge import CONTROLS
from attrsens.engine.metrics import parse_metrics, short
from attrsens.engine.plan import plan
from attrsens.engine.prepare import prepare_score
from attrsens.engine.report import Report, json_schema, to_data, to_json
from attrsens.methods.controls import shuffled
from attrsens.seeds import Stream
from attrsens.spec import SCORES, SIMILARITIES

CURVES = ["insertion", "deletion", "srg"]
POOL = ["max_sensitivity", "mean_sensitivity", "lipschitz", "ris"]


def spent(report: Report) -> tuple[int, int]:
    passes = report.provenance.passes_run
    return passes.forward, passes.backward


def body(report: Report) -> bytes:
    """The report without its provenance."""
    data = to_data(report)
    data.pop("provenance")
    return json.dumps(data).encode()


@pytest.mark.parametrize("metrics", [[name] for name in SCORES if not SCORES[name].traits.get("regional")])
def test_every_score_has_a_value_or_a_reason_and_says_what_it_is(metrics: list[str]) -> None:
    options = {"model": small(), "method": ["sg:n=2", "gradcam"], "metrics": metrics}
    report = attrsens.score([picture()], **options, cache=False)
    Draft202012Validator(json_schema()).validate(json.loads(to_json(report)))
    assert not report.failures
    for record in report.records:
        (name, score), *_ = record.scores.items()
        assert name == metrics[0]
        assert (score.value is None) == (score.reason is not None)
        low, high = SCORES[name].traits["range"]
        assert score.value is None or (low is None or score.value >= low - 1e-6)
        assert score.value is None or (high is None or score.value <= high + 1e-6)
        assert score.direction in ("higher", "lower", "none")
        for word in ("sign=", "reduce=", "space", f"class {record.target.index}"):
            assert word in score.definition
        assert "{" not in score.definition
        expected = (score.passes.forward, score.passes.backward)
        assert expected == (0, 0) or SCORES[name].traits["cost"] != "none"


def test_a_rerun_costs_nothing_and_gives_the_same_bytes() -> None:
    options = {"model": small(), "method": ["sg:n=2", "grad"], "metrics": [*CURVES, *POOL, "gini"], "calibrate": True}
    first = attrsens.score([picture(0), picture(1)], **options)
    again = attrsens.score([picture(0), picture(1)], **options)
    assert spent(first) > (0, 0)
    assert spent(again) == (0, 0)
    assert body(first) == body(again)


def test_what_is_missing_is_computed_to_the_same_bytes() -> None:
    """A resumed run: some of the scores are in the store, in another company."""
    options = {"model": small(), "method": ["sg:n=2", "grad"]}
    attrsens.score(picture(), metrics=["deletion", "lipschitz"], **options)
    resumed = attrsens.score(picture(), metrics=[*CURVES, *POOL], **options)
    whole = attrsens.score(picture(), metrics=[*CURVES, *POOL], cache=False, **options)
    assert body(resumed) == body(whole)
    assert spent(resumed) < spent(whole)


def test_order_of_images_and_size_of_batches_change_nothing() -> None:
    images = [picture(i) for i in range(3)]
    options = {"method": ["sg:n=2", "grad"], "metrics": [*CURVES, *POOL, "gini"], "cache": False}
    reference = attrsens.score(images, model=small(), **options)
    backward = attrsens.score(images[::-1], model=small(), **options)
    of = {(r.image.sha256, r.method.name): r for r in backward.records}
    for record in reference.records:
        assert of[record.image.sha256, record.method.name].scores == record.scores
    single = attrsens.score(images, model=small(), batch=1, **options)
    for a, b in zip(reference.records, single.records, strict=True):
        for name, score in a.scores.items():
            assert b.scores[name].value == pytest.approx(score.value, rel=1e-5, abs=1e-6), name


def test_curves_of_many_maps_are_one_stream() -> None:
    """54 images a map, whatever is asked of the curves, one hidden image for all, and batches that are full but one."""
    f = small()
    methods = ["grad", "gi", "sg:n=2", "ig:steps=3", "random"]
    alone = attrsens.explain(picture(), model=f, method=methods, cache=False)
    steps = 28  # ceil(256 / 28) = 10 pixels: 26 steps
    done = attrsens.score(picture(), model=f, method=methods, metrics=CURVES, cache=False)
    forward = spent(done)[0] - spent(alone)[0]
    images = 5 * 2 * (len(done.records[0].scores["deletion"].curve) - 2) + 1
    assert steps > 0
    assert images <= forward < images + f.sizes[1]
    assert spent(done)[1] == spent(alone)[1]
    for record in done.records:
        s = record.scores
        assert s["srg"].value == pytest.approx(s["insertion"].value - s["deletion"].value, abs=1e-9)


def test_all_sensitivities_draw_from_one_pool() -> None:
    f = small()
    one = attrsens.score(picture(), model=f, method="grad", metrics=["max_sensitivity"], cache=False)
    many = attrsens.score(picture(), model=f, method="grad", metrics=POOL, cache=False)
    assert spent(many)[1] == spent(one)[1]
    assert one.records[0].scores["max_sensitivity"].passes.backward == 50
    assert spent(one)[1] == 50 + 1, "no batch is filled up"


def test_another_sign_or_reduction_needs_no_new_map() -> None:
    f = small()
    attrsens.score(picture(), model=f, method="sg:n=4", metrics=["gini"], calibrate=False)
    again = attrsens.score(
        picture(), model=f, method="sg:n=4", metrics=["gini:sign=abs,reduce=max", "gini:reduce=sum"], calibrate=False
    )
    assert spent(again) == (0, 0)
    assert len({s.value for s in again.records[0].scores.values()}) == 2


def test_a_sign_that_the_method_takes_is_another_map_in_the_store(tmp_path: Path) -> None:
    """cascade judges magnitudes: those of a mean are not the mean of magnitudes (science C-8)."""
    metric = "cascade:stages=2,corrected=false"
    options = {"model": small(), "metrics": [metric], "cache_dir": str(tmp_path)}
    methods = ("sg:n=5", "sg:n=5,sign=abs", "sg:n=5,sign=abs_sample")
    plain, after, inside = (
        attrsens.score(picture(), method=method, **options).records[0].scores[metric] for method in methods
    )
    assert plain.value == after.value, "one cell: the score takes magnitudes of both"
    assert plain.key == after.key
    alone = attrsens.score(picture(), method=methods[2], **options | {"cache": False}).records[0].scores[metric]
    assert inside.value == alone.value != plain.value
    assert "map: sign=abs_sample, then abs, reduce=none" in inside.definition


def test_magnitudes_after_the_method_share_its_copies() -> None:
    options = {"model": small(), "metrics": ["max_sensitivity:n=4"], "cache": False}
    one = attrsens.score(picture(), method="sg:n=3", **options)
    two = attrsens.score(picture(), method=["sg:n=3", "sg:n=3,sign=abs"], **options)
    assert spent(two) == spent(one), "neither the map's, which is one run, nor a copy's"
    a, b = (r.scores["max_sensitivity:n=4"].value for r in two.records)
    assert a != b


def test_calibration_of_the_grid_is_on_the_grid() -> None:
    score = (
        attrsens.score("sample:chelsea", method="sg:n=2", metrics=["grid_pointing"], calibrate=True, cache=False)
        .records[0]
        .scores["grid_pointing"]
    )
    for name in ("shuffle", "random", "phase"):
        assert score.controls[name] == pytest.approx(0.25, abs=0.03)
    assert 0 < score.controls["edges"] < 0.6
    assert score.controls["other"] is None
    assert score.ceiling == pytest.approx(score.value, abs=0.15), "the same grid, other draws"


def test_calibration_is_of_scores_without_passes_unless_it_is_asked_for() -> None:
    f, metrics = small(), ["gini", "deletion", "max_sensitivity"]
    options = {"model": f, "method": "sg:n=2", "metrics": metrics, "cache": False}
    usual, full, none = (
        attrsens.score(picture(), calibrate=c, **options).records[0].scores for c in (None, True, False)
    )
    assert set(usual["gini"].controls) == set(CONTROLS) - {"seed"}
    assert usual["gini"].ceiling is not None
    assert not usual["deletion"].controls
    assert usual["deletion"].ceiling is None
    assert not none["gini"].controls
    for name in metrics:
        score = full[name]
        assert score.value == usual[name].value, "controls change nothing"
        assert score.floor == score.controls[SCORES[name].traits.get("floor", "shuffle")]
        assert score.ceiling is not None
        assert score.ceiling != score.value
    # a map with shuffled copies of itself: chance, the square root of two (science C-6)
    assert full["max_sensitivity"].controls["shuffle"] == pytest.approx(2**0.5, abs=0.25)
    assert full["max_sensitivity"].ceiling < full["max_sensitivity"].controls["random"]


def test_the_ceiling_of_a_method_that_draws_nothing_is_its_value() -> None:
    scores = attrsens.score(picture(), model=small(), method="grad", metrics=["gini"], cache=False).records[0].scores
    assert scores["gini"].ceiling == scores["gini"].value


def test_rescaled_is_zero_at_the_floor_and_one_at_the_best() -> None:
    record = attrsens.score(picture(), model=small(), method="grad", metrics=["gini"], cache=False).records[0]
    s = record.scores["gini"]
    assert s.rescaled == pytest.approx((s.value - s.floor) / (1 - s.floor))
    control = attrsens.score(picture(), model=small(), method="constant", metrics=["gini"], cache=False)
    assert control.records[0].scores["gini"].value == pytest.approx(0, abs=1e-9)


def test_logits_have_no_best_end() -> None:
    metrics = [f"{name}:output={output}" for name in CURVES for output in ("logit", "prob")]
    report = attrsens.score(
        picture(), model=small(), method="grad", metrics=metrics, metric_parameters={}, calibrate=True, cache=False
    )
    scores = report.records[0].scores
    for name in CURVES:
        assert scores[name].rescaled is not None
        assert scores[f"{name}:output=logit"].floor is not None
        assert scores[f"{name}:output=logit"].rescaled is None


def test_a_similarity_says_what_both_maps_are() -> None:
    methods = ["grad:output=logit", "ig:steps=2,output=prob,sign=abs"]
    report = attrsens.score(picture(), model=small(), method=methods, metrics=["spearman"], cache=False)
    text = report.records[0].similarities[0].definition
    assert (
        "map: sign=signed, reduce=mean, of the logit in pixel space; other map: sign=abs, reduce=mean, of the" in text
    )
    same = attrsens.score(picture(), model=small(), method=["grad", "gi"], metrics=["spearman"], cache=False)
    assert "other map" not in same.records[0].similarities[0].definition


def test_floors_of_similarities_are_means_of_both_places() -> None:
    report = attrsens.score(picture(), model=small(), method=["grad", "gi"], metrics=["pearson"], cache=False)
    (found,), (a, b) = report.records[0].similarities, (attribution.map for attribution in report.attributions)
    first = np.corrcoef(a.ravel(), shuffled(torch.from_numpy(b), stream(report), 0).ravel())[0, 1]
    second = np.corrcoef(b.ravel(), shuffled(torch.from_numpy(a), stream(report), 0).ravel())[0, 1]
    assert found.controls["shuffle"] == pytest.approx((first + second) / 2, abs=1e-6)
    assert first != pytest.approx(second, abs=1e-3)


def stream(report: Report) -> Stream:
    return Stream(0, report.records[0].image.sha256, "control shuffle")


def test_similarities_are_of_pairs_with_floor_and_ceiling() -> None:
    methods = ["sg:n=2", "grad", "gi"]
    report = attrsens.score(picture(), model=small(), method=methods, metrics=["cosine", "spearman"], cache=False)
    pairs = [(r.key, s.to, s.name) for r in report.records for s in r.similarities]
    assert len(pairs) == 6
    a, b = (attribution.map.ravel().astype(np.float64) for attribution in report.attributions[:2])
    first = report.records[0].similarities[0]
    assert first.value == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-6)
    assert first.to == report.records[1].key
    assert abs(first.controls["shuffle"]) < 0.3
    assert 0 < first.ceiling < 1
    with pytest.raises(attrsens.AttrsensError, match="compares two maps; give a second --method"):
        attrsens.score(picture(), model=small(), metrics="ssim")


def test_rows_about_all_images_have_an_interval() -> None:
    images = [picture(i) for i in range(8)]
    report = attrsens.score(images, model=small(), method="grad", metrics=["gini"], cache=False)
    row = next(a for a in report.aggregates if a.quantity == "gini")
    values = [r.scores["gini"].value for r in report.records]
    assert row.mean == pytest.approx(np.mean(values))
    assert row.sd == pytest.approx(np.std(values, ddof=1))
    assert row.ci95[0] < row.mean < row.ci95[1]
    assert (row.n, row.missing) == (8, 0)
    few = attrsens.score(images[:5], model=small(), method="grad", metrics=["gini"], cache=False)
    assert few.aggregates[0].ci95 is None


@pytest.mark.parametrize("calibrate", [None, True])
def test_a_plan_counts_what_is_then_made(calibrate: bool | None) -> None:
    metrics = [*CURVES, *POOL, "gini", "infidelity:n=20", "faithfulness:n=20"]
    options = {"model": small(), "method": ["sg:n=2", "gradcam"], "metrics": metrics, "calibrate": calibrate}
    prepared = prepare_score([picture()], **options)
    foreseen = plan(prepared.request, prepared.store, prepared.judging)
    report = attrsens.score([picture()], **options)
    assert (foreseen.forward, foreseen.backward) == spent(report)
    known = prepare_score([picture()], **options)
    after = plan(known.request, known.store, known.judging)
    assert (after.forward, after.backward) == (0, 0)


def test_names_in_the_report_are_short_and_read_back() -> None:
    scores, similarities = parse_metrics(["deletion,gini", "max_sensitivity:n=7,radius=0.2", "ssim"])
    assert [short(c) for c in scores] == ["deletion", "gini", "max_sensitivity:n=7,radius=0.2"]
    assert [c.name for c in similarities] == ["ssim"]
    assert parse_metrics([short(scores[2])])[0][0] == scores[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "delletion"], "unknown metric 'delletion'; did you mean 'deletion'?"),
        (["--metrics", "deletion:fil=black"], "unknown parameter 'fil'; did you mean 'fill'?"),
        (["--metrics", "deletion:fill=pink"], "deletion: fill must be one of"),
        (["--metrics", "gini", "--deletion-fill", "black"], "deletion has 'fill' set but is not among the metrics"),
        (["--metrics", "loc,eg"], "loc, eg: needs --annotations"),
        (["--metrics", "pointing", "--annotations", "nowhere.json"], "nowhere.json"),
        (["--metrics", "ssim"], "ssim compares two maps; give a second --method"),
        (["--metrics", ","], "metrics: no name given"),
        (["--metrics", "gini,deletion:fill=black"], "give --metrics deletion:... apart"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_cli, tmp_path, arguments, message) -> None:
    code, stdout, stderr = run_cli("score", "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not stdout


def test_the_command_writes_curves_tables_and_a_report(run_cli, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ["--metrics", "deletion,insertion,gini", "--deletion-fill", "black", "--format", "png,csv"]
    code, stdout, _ = run_cli("score", "sample:coffee", "--method", "grad", *arguments, "--out", out)
    assert code == 0
    data = json.loads((out / "report.json").read_bytes())
    Draft202012Validator(json_schema()).validate(data)
    assert data["command"] == "score"
    (record,) = data["records"]
    assert set(record["scores"]) == {"deletion:fill=black", "insertion", "gini"}
    assert data["config"]["metrics"][0].startswith("deletion:")
    with Image.open(out / record["artifacts"]["curves"]) as drawn:
        assert drawn.width > 400
    rows = list(csv.DictReader(io.StringIO((out / "scores.csv").read_text())))
    assert [row["metric"] for row in rows] == [*record["scores"]]
    assert float(rows[2]["value"]) == record["scores"]["gini"]["value"]
    lines = [line.split("\t") for line in stdout.splitlines()]
    assert [line[4] for line in lines] == [*record["scores"]]
    again, _, _ = run_cli("score", "sample:coffee", "--method", "grad", *arguments, "--out", out)
    assert again == 0, "its own files are replaced"


def test_a_foreign_table_is_not_replaced(run_cli, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("mine\n")
    arguments = ("--metrics", "gini", "--no-calibrate", "--format", "csv", "--out", tmp_path)
    code, _, stderr = run_cli("score", "sample:coffee", "--method", "constant", *arguments)
    assert code == 2
    assert "scores.csv was not written by attrsens" in stderr
    assert (tmp_path / "scores.csv").read_text() == "mine\n"


def test_every_metric_is_listed_with_its_meaning(run_cli) -> None:
    code, stdout, _ = run_cli("list", "metrics", "--json", "-")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(stdout)}
    assert set(rows) == {*SCORES, *SIMILARITIES}
    for row in rows.values():
        assert row["formula"]
        assert row["source"]
        assert row["direction"] in ("higher", "lower", "none")
    code, stdout, _ = run_cli("list", "metrics")
    assert code == 0
    assert all(f"\n{name} " in f"\n{stdout}" for name in rows)


def test_the_names_are_those_of_the_design() -> None:
    assert set(SCORES) == set(
        "insertion deletion srg wsl pointing grid_pointing loc eg pp con class_top20 gini infidelity max_sensitivity "
        "mean_sensitivity prediction_sensitivity sensitivity_ratio ris ros rrs stability_rate faithfulness cascade "
        "alignment completeness lipschitz deviation".split()
    )
    assert set(SIMILARITIES) == set(
        "spearman hog ssim l1 l2 cosine pearson topk_overlap sign_agreement centre_shift".split()
    )


@pytest.mark.parametrize("metrics", [["ros", "rrs"], ["spearman", "ssim"], ["spearman", "gini"]])
def test_a_plan_counts_what_every_metric_spends(metrics: list[str]) -> None:
    """Copies' logits beside the image's own, and the maps beside similarities."""
    options = {"model": small(), "method": ["sg:n=2", "grad"], "metrics": metrics, "cache": False}
    prepared = prepare_score([picture()], **options)
    foreseen = plan(prepared.request, None, prepared.judging)
    assert (foreseen.forward, foreseen.backward) == spent(attrsens.score([picture()], **options))


def test_a_search_for_one_image_is_not_filled_up_to_the_width_of_many() -> None:
    """What alignment costs an image does not grow with the number of images, and a plan counts it."""
    options = {"model": small(), "metrics": ["alignment"], "method": "grad", "cache": False}
    one = spent(attrsens.score([picture(0)], **options))
    prepared = prepare_score([picture(0)], **options)
    assert plan(prepared.request, None, prepared.judging).forward == pytest.approx(one[0], abs=2)
    two = spent(attrsens.score([picture(0), picture(0)], **options))
    assert two[1] <= 2 * one[1]


def test_a_plan_leaves_out_what_does_not_suit_an_image() -> None:
    """As a run, which reports it and goes on."""
    model = attrsens.Classifier(SmallNet("reused"), [0.45] * 3, [0.25] * 3, device="cpu")
    options = {"model": model, "method": ["sp:patch_size=18", "grad"], "metrics": ["gini"], "calibrate": False}
    images = [picture(0, 20), picture(1)]
    prepared = prepare_score(images, **options, cache=False)
    foreseen = plan(prepared.request, None, prepared.judging)
    report = attrsens.score(images, **options, cache=False)
    assert [failure.stage for failure in report.failures] == ["compute"]
    assert (foreseen.forward, foreseen.backward) == spent(report)


def test_an_annotation_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "a.xml").write_text("<annotation><object>")
    options = {"model": small(), "method": "grad", "metrics": ["eg", "gini"], "cache": False}
    report = attrsens.score(tmp_path / "a.png", annotations=tmp_path / "boxes", **options)
    assert [failure.stage for failure in report.failures] == ["annotation"]
    scores = report.records[0].scores
    assert scores["eg"].value is None
    assert scores["eg"].reason.startswith("the annotation cannot be used: ")
    assert scores["gini"].value is not None
