"""report.html: complete, escaped, closed to the outside, small, and alive in a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import RunCli
from pages import Page, Result, alike, report, result, scored
from PIL import Image

import attrsens
from attrsens.engine.report import Aggregate, Comparison, Failure, Gate, PassInfo, Record, Report, Skipped
from attrsens.errors import AttrsensError, OutputError
from attrsens.render.agreement import CompareWriter
from attrsens.render.html import thumbs
from attrsens.render.html.order import orders
from attrsens.render.picture import colour_limit, palette

EVIL = """"><script>alert('1')</script><img src=x onerror="alert(2)">&amp;\u202e' onload='x"""


def written(folder: Path, results: list[list[Result]], made: Report, writer: type = attrsens.Writer) -> bytes:
    w = writer(folder, ())
    for part in results:
        w.add(part)
    w.finish(made)
    return (folder / "report.html").read_bytes()


def page_of(folder: Path, *parts: list[Result], command: str = "explain", **more: object) -> tuple[Page, bytes]:
    data = written(folder, list(parts), report([r for part in parts for r, _ in part], command, **more))
    return Page(data), data


def rich() -> tuple[list[list[Result]], dict[str, object]]:
    """Two images, two models, two settings, with all that a report can hold."""
    parts = []
    for image, value in (("a.jpg", 0.9), ("dir/b.jpg", 0.2)):
        part = [result(image, n, model=model) for model in ("m1", "m2") for n in (1, 2)]
        for i, (record, _) in enumerate(part):
            scored(record, value / (i + 1))
            for other, _ in part[i + 1 :]:
                alike(record, other, value)
        parts.append(part)
    group = {
        "model": "m1",
        "noise": 0.0,
        "erased": None,
        "method": "sg",
        "parameters": {"n": 1},
        "expression": "sg:n=1",
    }
    other = {**group, "parameters": {"n": 2}, "expression": "sg:n=2"}
    more = {
        "aggregates": [
            Aggregate("insertion", group, 0.55, 0.1, (0.4, 0.7), 8, 1, {"no value": 1}),
            Aggregate("ssim", {**group, "to": other}, 0.61, 0.1, (0.5, 0.7), 8, 0, {}),
            Aggregate("ssim (rescaled)", {**group, "to": other}, 0.51, 0.1, (0.4, 0.6), 8, 0, {}),
            Aggregate("ssim (floor)", {**group, "to": other}, 0.17, None, None, 8, 0, {}),
        ],
        "comparisons": [
            Comparison("insertion", group, other, 0.21, (0.1, 0.3), 1.1, 0.01, 0.03, 8, 0.06, verdict="moved")
        ],
        "effects": [
            {"kind": "novelty", "parameter": "n", "effect": 0.33, "ci95": [0.2, 0.4], "group": group, "reason": None},
            {"kind": "novel_share", "knobs": ["n", "spread"], "value": None, "reason": "not measured"},
        ],
        "failures": [Failure("broken.jpg", "decode", "is no picture", model="m1")],
        "skipped": [Skipped("c.jpg", "m1", "top-1 is wrong")],
        "gates": [Gate("ssim<0.6", False, 0.41, 3, 2, group), Gate("gini<0.1", True, 0.5, 1, 0, group)],
    }  # fmt: skip
    return parts, more


def test_a_page_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    parts, more = rich()
    page, data = page_of(tmp_path, *parts, command="compare", **more)
    for words in (
        "attrsens compare", "1 of 2 gates failed", "1 failure", "broken.jpg, m1", "is no picture", "top-1 is wrong",
        "ssim<0.6", "0.41", "2 of 3 rows fail", "0.55", "0.4 to 0.7", "no value", "0.17", "0.51", "0.21", "moved",
        "0.06", "0.33", "0.2 to 0.4", "not measured", "a.jpg", "dir/b.jpg", "cat (5)", "p = 0.500", "sg:n=2",
        "its definition", "higher is better", "made by this run", "seed",
    ):  # fmt: skip
        assert words in page.text, words
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses), page.addresses
    assert sum(a.startswith("data:image/png") for a in page.addresses) == 8
    assert page.all("html") == [{"lang": "en"}]
    names = {name for name, _ in page.elements}
    assert {"header", "main", "nav", "section", "article", "figure", "figcaption", "caption", "thead"} <= names
    assert not names & {"link", "iframe", "object", "embed", "base", "audio", "video"}
    assert all(image["alt"] for image in page.all("img"))
    assert all(cell.get("scope") for cell in page.all("th"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(ids)
    assert not any("style" in a or any(k.startswith("on") for k in a) for _, a in page.elements)
    assert b"http:" not in data
    assert b"https:" not in data
    assert b"url(" not in data


def test_the_policy_allows_the_page_itself_alone(tmp_path: Path) -> None:
    page, data = page_of(tmp_path, [result()])
    (policy,) = (m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("style", "script"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", data.decode(), re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in found]
        assert rules[f"{name}-src"].split() == [f"'sha256-{h}'" for h in hashes]


def evil_parts() -> tuple[list[Result], dict[str, object]]:
    part = [result(EVIL, 1, model=EVIL, label=EVIL), result(EVIL, 2, model=EVIL, label=EVIL)]
    for r, _ in part:
        r.method = dataclasses.replace(r.method, expression=f"sg:n={EVIL}")
        r.image.notes = [EVIL]
        r.input.erased, r.input.fill = f"{EVIL}.png", "mean"
        scored(r, 0.5, EVIL)
    alike(part[0][0], part[1][0], 0.5, EVIL, EVIL)
    group: dict[str, object] = {"model": EVIL, "method": EVIL, "noise": 0.0, "erased": EVIL, "parameters": {EVIL: EVIL}}
    comparison = Comparison(EVIL, group, group, 0.1, None, None, None, None, 3, None, definition=EVIL, verdict=EVIL)
    more = {
        "failures": [Failure(EVIL, EVIL, EVIL, EVIL, EVIL)],
        "skipped": [Skipped(EVIL, EVIL, EVIL)],
        "gates": [Gate(EVIL, False, None, 1, 1, group, EVIL)],
        "aggregates": [Aggregate(EVIL, {**group, "to": group}, 0.1, None, None, 1, 1, {EVIL: 1})],
        "comparisons": [comparison],
        "effects": [{"kind": EVIL, EVIL: EVIL, "definition": EVIL, "more": [EVIL, {EVIL: [EVIL]}]}],
        "figures": [EVIL, "../../etc/passwd"],
    }  # fmt: skip
    return part, more


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    part, more = evil_parts()
    made = report([r for r, _ in part], "compare", **more)
    made.config = {EVIL: [EVIL, {EVIL: EVIL}]}
    made.provenance.argv, made.provenance.device = [EVIL], EVIL
    made.provenance.versions, made.provenance.weights = {EVIL: EVIL}, {EVIL: EVIL}
    w = attrsens.Writer(tmp_path, ())
    w._made_page().add([part])  # the names of its files are tested elsewhere
    w.finish(made)
    data = (tmp_path / "report.html").read_bytes()
    page = Page(data)
    assert len(page.all("script")) == 1
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert not any(k.startswith("on") for _, a in page.elements for k in a)
    assert data.count(b"<script>") == 1
    assert "\u202e".encode() not in data
    assert page.text.count("alert('1')") > 20


def test_the_maps_can_be_read_back(tmp_path: Path) -> None:
    part = [result(n=n, side=24) for n in (1, 2)]
    page, _ = page_of(tmp_path, part)
    limit = colour_limit([a.map for _, a in part])
    frames = [a for name, a in page.elements if name == "div" and "data-limit" in a]
    images = [a for a in page.all("img") if (a["src"] or "").startswith("data:image/png")]
    for frame, image, (_, attribution) in zip(frames, images, part, strict=True):
        assert float(frame["data-limit"] or 0) == pytest.approx(limit, rel=1e-5)
        assert (image["width"], image["height"]) == ("24", "24")
        opened = Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2]))).convert("RGB")
        known = {tuple(int(c) for c in colour): i for i, colour in enumerate(palette())}
        level = np.array([[known[tuple(int(c) for c in pixel)] for pixel in row] for row in np.asarray(opened)])
        assert np.abs((level / 128 - 1) * limit - np.clip(attribution.map, -limit, limit)).max() < limit / 60


def test_the_colours_are_told_apart() -> None:
    assert len({bytes(colour) for colour in palette()[::2]}) == 129
    assert len({bytes(colour) for colour in palette()}) >= 255
    assert bytes(palette()[128]) == b"\xff\xff\xff"


def test_two_hundred_images_stay_below_ten_megabytes(tmp_path: Path) -> None:
    seed = np.random.default_rng(0)
    noise = [seed.standard_normal((224, 224)).astype(np.float32) for _ in range(3)]
    parts = [[result(f"{i}.jpg", n, heatmap=noise[n]) for n in range(3)] for i in range(200)]
    page, data = page_of(tmp_path, *parts)
    assert 5e6 < len(data) < 10e6
    assert len(page.all("article")) == 200
    sides = {int(image["width"] or 0) for image in page.all("img")}
    assert len(sides) == 1
    assert sides.pop() >= 80
    assert "Thumbnails have" in page.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["heatmaps", "report.html", "report.json"]


def test_more_maps_than_fit_are_sketches_then_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attrsens.render.html.page.MOST", 150_000)
    parts = [[result(f"{i}.jpg", n) for n in (1, 2)] for i in range(60)]
    page, data = page_of(tmp_path, *parts)
    assert len(data) < 150_000
    assert "sketches, as there are many" in page.text
    assert {image["width"] for image in page.all("img")} == {"28"}
    shown = len(page.all("article"))
    assert 5 < shown < 60
    assert f"{60 - shown} images more, for which the page has no room" in page.text


def test_thumbnails_too_large_for_the_page_are_given_up_on_the_way(tmp_path: Path) -> None:
    found = thumbs.Thumbs(tmp_path, 40_000)
    for i in range(20):
        found.add([[result(f"{i}.jpg", side=64)]])
    assert sum(rung.size for rung in found.rungs) <= 40_000 * len(thumbs.SIDES)
    assert found.best(40_000) in (0, 36)
    found.close()


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        parts, more = rich()
        pages.append(page_of(tmp_path / name, *parts, command="compare", **more)[1])
    assert pages[0] == pages[1]
    parts, more = rich()
    made = report([r for part in parts for r, _ in part], "compare", **more)
    made.provenance = dataclasses.replace(made.provenance, seconds=99.0, started="2027", passes_run=PassInfo(1, 1))
    other = written(tmp_path / "c", parts, made)
    head, _, _ = pages[0].partition(b'<section id="provenance"')
    assert other.startswith(head)


def test_a_foreign_page_is_refused_and_ours_is_replaced(tmp_path: Path) -> None:
    page_of(tmp_path, [result()])
    _, data = page_of(tmp_path, [result("other.jpg")])
    assert b"other.jpg" in data
    (tmp_path / "report.html").write_text("<!DOCTYPE html><title>mine</title>")
    with pytest.raises(AttrsensError, match=r"report\.html was not written by attrsens"):
        attrsens.Writer(tmp_path)
    attrsens.Writer(tmp_path, (), force=True).finish(report([result()[0]]))
    assert b"attrsens explain" in (tmp_path / "report.html").read_bytes()


def test_without_maps_in_memory_the_page_shows_sketches(tmp_path: Path) -> None:
    attrsens.Writer(tmp_path, ()).finish(report([result(side=64)[0]]))
    page = Page((tmp_path / "report.html").read_bytes())
    assert [image["width"] for image in page.all("img")] == ["28"]


def test_an_empty_and_an_interrupted_report(tmp_path: Path) -> None:
    made = report([])
    made.provenance.interrupted = True
    attrsens.Writer(tmp_path, ()).finish(made)
    page = Page((tmp_path / "report.html").read_bytes())
    assert "interrupted" in page.text
    assert "0 maps of 0 images" in page.text
    assert not page.all("article")


def test_a_map_of_zeros_and_one_of_channels(tmp_path: Path) -> None:
    zeros = result(n=1, heatmap=np.zeros((8, 8), np.float32))
    wide = result(n=2, heatmap=np.ones((3, 8, 16), np.float32))
    page, _ = page_of(tmp_path, [zeros, wide])
    assert [(i["width"], i["height"]) for i in page.all("img") if "png" in (i["src"] or "")] == [
        ("8", "8"),
        ("16", "8"),
    ]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(thumbs.Thumbs, "_put", full)
    with pytest.raises(OutputError, match="No space left"):
        attrsens.Writer(tmp_path, ()).add([result()])


def slugs(records: list[Record]) -> dict[str, dict[str, float]]:
    return {order.slug: order.values for order in orders(records)}


def test_moved_most_is_the_least_similar_to_the_reference() -> None:
    (a, _), (b, _), (c, _) = result("a"), result("b"), result("c", probability=0.1)
    for record, value in ((a, 0.5), (b, 0.2), (c, 0.8)):
        alike(record, record, value, "reference")
        alike(record, record, -1, "neighbour")
    found = slugs([a, b, c])
    assert sorted(found["moved"], key=found["moved"].__getitem__) == ["b", "a", "c"]
    assert min(found["sure"], key=found["sure"].__getitem__) == "c"


def test_without_a_reference_the_changed_input_counts_then_models_then_methods() -> None:
    clean, noisy, other = result("a")[0], result("a", noise=0.1)[0], result("a", model="m2")[0]
    noisy.key = "f" * 64
    alike(clean, noisy, 0.3)
    alike(clean, other, 0.2)
    found = {order.slug: order for order in orders([clean, noisy, other])}
    assert found["moved"].label == "moved most by the changed input: ssim"
    assert found["moved"].values == {"a": 0.3}
    assert found["models"].values == {"a": 0.2}
    assert set(slugs([result("a")[0]])) == {"sure"}


def test_the_gap_is_between_two_models_and_the_same_maps() -> None:
    records = [result(image, n, model=m)[0] for image in ("a", "b") for m in ("m1", "m2") for n in (1, 2)]
    for record, value in zip(records, (0.1, 0.9, 0.2, 0.8, 0.1, 0.9, 0.5, 0.9), strict=True):
        scored(record, value)
    assert slugs(records)["gap"] == {"a": pytest.approx(-0.1), "b": pytest.approx(-0.4)}
    assert slugs(records)["worst"] == {"a": 0.1, "b": 0.1}


def test_figures_are_inlined_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "figures").mkdir(parents=True)
    for path in (tmp_path / "out" / "figures" / "a.png", tmp_path / "outside.png"):
        Image.new("RGB", (5, 4)).save(path)
    made = report([], figures=["figures/a.png", "../outside.png", "figures/lost.png"])
    attrsens.Writer(tmp_path / "out", ()).finish(made)
    page = Page((tmp_path / "out" / "report.html").read_bytes())
    assert [(i["width"], i["height"]) for i in page.all("img")] == [("5", "4")]
    assert "figures/lost.png" in page.text


def test_every_command_writes_its_page(run_cli: RunCli, tmp_path: Path) -> None:
    code, _, err = run_cli("explain", "sample:coffee", "--out", str(tmp_path / "out"))
    assert code == 0
    assert f"report: {tmp_path / 'out' / 'report.html'}" in " ".join(err.split())
    page = Page((tmp_path / "out" / "report.html").read_bytes())
    assert "espresso (967)" in page.text
    noisy = ("--method", "grad", "--noise", "0.1", "--metrics", "ssim")
    assert run_cli("compare", "sample:coffee", *noisy, "--out", str(tmp_path / "out"), "-q")[0] == 0
    page = Page((tmp_path / "out" / "report.html").read_bytes())
    assert "attrsens compare" in page.text
    assert "noise 0.1" in page.text
    steps = ("--method", "sg", "--param", "n", "--values", "2,3", "--metrics", "ssim", "--replicates", "2")
    assert run_cli("sweep", "sample:coffee", *steps, "--out", str(tmp_path / "out"), "-q")[0] == 0
    page = Page((tmp_path / "out" / "report.html").read_bytes())
    for words in (
        "attrsens sweep",
        "the seed",
        "Which knob of sg",
        "sg, n=3",
        "work shared",
        "moved most: ssim",
    ):
        assert words in page.text, words


def test_every_writer_writes_the_page(tmp_path: Path) -> None:
    parts, more = rich()
    data = written(tmp_path, parts, report([r for p in parts for r, _ in p], "compare", **more), CompareWriter)
    assert Page(data).all("article")


# -- in a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --disable-default-apps "
    "--virtual-time-budget=4000"
).split()


def browse(folder: Path, path: Path, *flags: str, fragment: str = "") -> str:
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", *flags, path.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return done.stdout.decode()


@needs_browser
def test_the_script_runs_and_sorts(tmp_path: Path) -> None:
    parts = [[result(name, 1), result(name, 2)] for name in ("b.jpg", "c.jpg", "a.jpg")]
    for part, value in zip(parts, (0.5, 0.1, 0.9), strict=True):
        alike(part[0][0], part[1][0], value)
    page_of(tmp_path / "out", *parts)
    found = {}
    for asked in ("", "#sort=moved", "#sort=name", "#sort=no-such"):
        dump = browse(tmp_path / "profile", tmp_path / "out" / "report.html", "--dump-dom", fragment=asked)
        assert 'data-ready="true"' in dump
        found[asked] = re.findall(r"<h3>(\S+)", dump)
    assert found[""] == found["#sort=no-such"] == ["b.jpg", "c.jpg", "a.jpg"]
    assert found["#sort=moved"] == ["c.jpg", "b.jpg", "a.jpg"]
    assert found["#sort=name"] == ["a.jpg", "b.jpg", "c.jpg"]


@needs_browser
def test_the_value_under_the_pointer_is_the_maps(tmp_path: Path) -> None:
    part = [result(n=n, side=24) for n in (1, 2)]
    _, data = page_of(tmp_path / "out", part)
    limit = colour_limit([a.map for _, a in part])
    script = """<script>
    const frame = document.querySelector("[data-limit]"), box = frame.getBoundingClientRect();
    frame.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, pointerType: "mouse",
      clientX: box.left + box.width * 7.5 / 24, clientY: box.top + box.height * 3.5 / 24}));
    </script></body>"""
    changed = re.sub(rb'<meta http-equiv="Content-Security-Policy"[^>]*>', b"", data)
    path = tmp_path / "out" / "probe.html"
    path.write_bytes(changed.replace(b"</body>", script.encode()))
    dump = browse(tmp_path / "profile", path, "--dump-dom")
    shown = re.findall(r"<output[^>]*>([^<]+)</output>", dump)
    assert len(shown) == 2
    for text, (_, attribution) in zip(shown, part, strict=True):
        number = float(re.sub("[≤≥ ]", "", text).replace("−", "-"))
        assert number == pytest.approx(np.clip(attribution.map[3, 7], -limit, limit), abs=limit / 60)


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_looked_at(tmp_path: Path, width: int) -> None:
    parts, more = rich()
    page_of(tmp_path / "out", *parts, command="compare", **more)
    shot = tmp_path / "shot.png"
    flags = f"--screenshot={shot}", f"--window-size={width},2200"
    browse(tmp_path / "profile", tmp_path / "out" / "report.html", *flags)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    assert (np.ptp(pixels, axis=(1, 2)) > 100).mean() > 0.2  # rows in which something stands


def requests(log: Path) -> list[str]:
    """The addresses that a browser's log of the network names, but for its own."""
    text = log.read_text(errors="replace")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # the browser was ended before the log's
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    return [e["params"]["url"] for e in events if "url" in e.get("params", {})]


@needs_browser
def test_nothing_leaves_the_page(tmp_path: Path) -> None:
    part, more = evil_parts()
    w = attrsens.Writer(tmp_path / "out", ())
    w._made_page().add([part])
    w.finish(report([r for r, _ in part], "compare", **more))
    control = tmp_path / "control.html"
    control.write_text('<!DOCTYPE html><img src="http://asked.invalid/x.png">')
    seen = {}
    for path in (tmp_path / "out" / "report.html", control):
        log = tmp_path / f"{path.stem}.json"
        browse(tmp_path / f"profile-{path.stem}", path, f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND",
               "--dump-dom")  # fmt: skip
        own = ("file:", "data:", "chrome", "devtools:", "about:", "blob:")
        seen[path.stem] = {u for u in requests(log) if not u.startswith(own) and "google" not in u}
    assert "http://asked.invalid/x.png" in seen["control"]
    assert seen["report"] == set()
