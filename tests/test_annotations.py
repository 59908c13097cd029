"""Annotations: every format says the same, in the image's own frame, and nothing hostile gets through."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import DATA, needs_data
from PIL import Image as PIL
from skimage.draw import polygon2mask
from toys import uniform

import attrsens
from attrsens.engine.annotations import Annotations, drawing
from attrsens.engine.annotations.entries import Category
from attrsens.engine.inputs import Source, expand
from attrsens.errors import InputError
from attrsens.images import Image, Preprocess
from attrsens.models.labels import load_labels
from attrsens.regions import Region, Thing

HEIGHT, WIDTH = 40, 60
BOX = (10, 3, 50, 30)  # left, top, right, bottom


def model(classes=("cat", "dog", "crane", "crane"), wnids=(), **preprocess: object) -> SimpleNamespace:
    """What annotations need of a classifier."""
    return SimpleNamespace(
        preprocess=Preprocess(**preprocess), classes=list(classes) or None, wnids=tuple(wnids), class_count=len(classes)
    )


def blank(height: int = HEIGHT, width: int = WIDTH) -> Image:
    return Image("x", np.zeros((height, width, 3), np.uint8))


def source(path: str | Path) -> Source:
    return Source(str(path), blank, Path(path))


def region(annotations: str | Path, image: str | Path = "photo.jpg", f: SimpleNamespace | None = None) -> Region | None:
    return Annotations(annotations).of(source(image), blank(), f or model())


def coco(objects: list[dict], categories: list[dict] | None = None, images: list[dict] | None = None) -> dict:
    images = images or [{"id": 1, "file_name": "photo.jpg", "width": WIDTH, "height": HEIGHT}]
    categories = [{"id": 7, "name": "dog"}] if categories is None else categories
    return {"images": images, "annotations": [{"image_id": 1, "category_id": 7, **o} for o in objects],
            "categories": categories}  # fmt: skip


def write(path: Path, data: object) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def voc(objects: str, size: str = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>") -> str:
    return f"<annotation><filename>photo.jpg</filename>{size}{objects}</annotation>"


def voc_object(name: str, *box: float) -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"


def runs(mask: np.ndarray) -> list[int]:
    """COCO's run lengths, from the definition."""
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *counts] if flat[0] else counts


def packed(counts: list[int]) -> str:
    """COCO's compression, from its description."""
    out = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            low, value = value & 31, value >> 5
            done = value == (-1 if low & 16 else 0)
            out += chr(48 + (low if done else low | 32))
            if done:
                break
    return out


def rectangle() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return mask


class TestFormats:
    left, top, right, bottom = BOX

    def files(self, folder: Path) -> dict[str, Path]:
        left, top, right, bottom = BOX
        shapes = {
            "polygon": [[left, top, right, top, right, bottom, left, bottom]],
            "halves": [
                [left, top, 30, top, 30, bottom, left, bottom],
                [30, top, right, top, right, bottom, 30, bottom],
            ],
            "runs": {"size": [HEIGHT, WIDTH], "counts": runs(rectangle())},
            "packed": {"size": [HEIGHT, WIDTH], "counts": packed(runs(rectangle()))},
        }
        out = {
            k: write(folder / f"{k}.json", coco([{"segmentation": v, "bbox": [0, 0, 1, 1]}])) for k, v in shapes.items()
        }
        bbox = [left, top, right - left, bottom - top]
        out["box"] = write(folder / "box.json", coco([{"bbox": bbox}]))
        out["empty"] = write(folder / "empty.json", coco([{"bbox": bbox, "segmentation": []}]))
        out["xml"] = write(folder / "any.xml", voc(voc_object("dog", *BOX)))
        for name, mode in (("L", "L"), ("P", "P"), ("1", "1"), ("I", "I;16")):
            (folder / name).mkdir()
            values = rectangle() if mode == "1" else rectangle().astype(np.uint16 if mode == "I;16" else np.uint8) * 7
            picture = PIL.fromarray(values)
            if mode == "P":
                picture.putpalette([0, 200, 13] * 256)
            picture.save(folder / name / "photo.png")
            out[f"mask {mode}"] = folder / name
        return out

    def test_all_formats_draw_the_same(self, tmp_path: Path) -> None:
        for name, path in self.files(tmp_path).items():
            found = region(path)
            assert found is not None, name
            assert found.kind == ("box" if name in ("box", "empty", "xml") else "mask"), name
            (thing,) = found.things
            np.testing.assert_array_equal(thing.cover, rectangle().astype(np.float32), err_msg=name)
            assert thing.box() == (3, 10, 30, 50)
            assert found.boxes() == ((3, 10, 30, 50),)
            if not name.startswith("mask"):
                assert (thing.label, thing.classes) == ("dog", (1,)), name

    def test_compressed_runs_equal_the_coco_api(self) -> None:
        # a noisy 23 x 31 mask as pycocotools 2.0.11 writes and reads it
        text = (
            "024O20O1MO10O0O00120NO73K01NN0020MO00000020N183HL031N30L3020J30M0010O02211NM10N050M30MO050L40M0240JM10O1023"
            "MM31M30M11OO30M2145JJO00031NOO54K00N0O0O10O2021L12N50J0O00060N0M012ON0021OON031MO0020105l7"
        )
        bits = (
            "c9409fff29011ffc502efff850a07ff48461ffe7ffe5ffefffa3ffbfffa7ff3fff1ffe980c1ffc2884bffac8c17ff66c40fff60c0bff"
            "c80143ff99d157ff402c4ffeb6b05ffc11823ffec3007ffb071cffe646e9ffc0813bff80"
        )
        expected = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[: 23 * 31].reshape(23, 31).astype(bool)
        np.testing.assert_array_equal(drawing.run_lengths(drawing.unpack(text), (23, 31)), expected)
        assert packed(runs(expected)) == text

    def test_polygons_equal_scikit_image_at_pixel_centres(self) -> None:
        for seed in range(20):
            points = uniform(8, 2, seed=seed).double().numpy() * (WIDTH + 20, HEIGHT + 20) - 10  # some outside
            ours = drawing.polygon(points.flatten().tolist(), (HEIGHT, WIDTH))
            np.testing.assert_array_equal(ours, polygon2mask((HEIGHT, WIDTH), points[:, ::-1] - 0.5))

    def test_a_box_covers_its_border_in_part(self) -> None:
        cover = drawing.box((1.25, 0.5, 3.5, 2.0), (4, 5))
        np.testing.assert_allclose(cover[0], np.array([0, 0.75, 1, 0.5, 0]) / 2)
        np.testing.assert_allclose(cover.sum(), 2.25 * 1.5)

    def test_crowds_do_not_count_and_an_image_of_crowds_has_no_region(self, tmp_path: Path) -> None:
        crowd = {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}}
        both = region(write(tmp_path / "a.json", coco([crowd, {"bbox": [0, 0, 2, 2]}])))
        assert both is not None
        assert len(both.things) == 1
        assert region(write(tmp_path / "b.json", coco([crowd]))) is None

    def test_void_is_no_object_but_a_mask_of_0_and_255_has_one(self, tmp_path: Path) -> None:
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[:10], values[10] = 3, 255
        PIL.fromarray(values).save(tmp_path / "photo.png")
        found = region(tmp_path)
        assert found is not None
        assert [t.label for t in found.things] == ["3"]
        PIL.fromarray(np.where(values == 3, 255, 0).astype(np.uint8)).save(tmp_path / "photo.png")
        found = region(tmp_path)
        assert found is not None
        assert found.inside().sum() == 10 * WIDTH

    def test_every_bndbox_of_an_object_but_none_of_its_parts(self, tmp_path: Path) -> None:
        part = "<object><name>dog</name><part><name>head</name><bndbox/></part>"
        text = voc(
            part + voc_object("dog", 0, 0, 2, 2).removeprefix("<object><name>dog</name>") + voc_object("cat", *BOX)
        )
        found = region(write(tmp_path / "photo.xml", text))
        assert found is not None
        assert [(t.label, t.box()) for t in found.things] == [("dog", (0, 0, 2, 2)), ("cat", (3, 10, 30, 50))]


GEOMETRIES = [
    ({"resize": 32, "crop": 28}, (45, 61)),
    ({"resize": 32, "crop": 27, "interp": "bicubic"}, (61, 45)),
    ({"resize": 50, "crop": 31}, (40, 41)),
    ({"resize": 32, "crop": 24, "squash": True}, (45, 80)),
    ({"crop": 17}, (30, 41)),
    ({"resize": 20}, (33, 47)),
]


@pytest.mark.parametrize(("settings", "size"), GEOMETRIES)
def test_geometry_is_torchvisions(tmp_path: Path, settings: dict, size: tuple[int, int]) -> None:
    from torchvision.transforms import InterpolationMode, v2

    h, w = size
    mask = uniform(h // 3, w // 3, seed=h).numpy() > 0.5
    mask = np.kron(mask, np.ones((3, 3))).astype(np.uint8)
    mask = np.pad(mask, ((0, h - mask.shape[0]), (0, w - mask.shape[1]))) * 5
    PIL.fromarray(mask).save(tmp_path / "photo.png")
    found = Annotations(tmp_path).of(source("photo.jpg"), blank(h, w), model(**settings))
    assert found is not None
    tensor = torch.from_numpy(mask == 5).float()[None]
    if "resize" in settings:
        side = settings["resize"]
        to = [side, side] if settings.get("squash") else side
        tensor = v2.functional.resize(tensor, to, interpolation=InterpolationMode.BILINEAR, antialias=True)
    if "crop" in settings:
        tensor = v2.functional.center_crop(tensor, settings["crop"])
    np.testing.assert_allclose(found.things[0].cover, tensor[0].numpy(), atol=1e-5)
    assert found.things[0].cover.shape == Preprocess(**settings).apply(blank(h, w)).shape[1:]


class TestWhichImage:
    def test_by_file_name_with_or_without_folders(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.json", coco([{"bbox": [0, 0, 5, 5]}], images=[{"id": 1, "file_name": "train/photo.jpg"}])
        )
        for name in ("photo.jpg", "train/photo.jpg", "elsewhere/photo.jpg"):
            assert region(path, name) is not None, name
        for name in ("photo.png", "otherphoto.jpg"):
            assert region(path, name) is None, name

    def test_folders_tell_equal_names_apart(self, tmp_path: Path) -> None:
        images = [
            {"id": i, "file_name": f"{folder}/photo.jpg"}
            for i, folder in ((1, "a/train"), (2, "b/train"), (3, "b/val"))
        ]
        objects = [{"image_id": i, "bbox": [0, 0, i, 1]} for i in (1, 2, 3)]
        path = write(tmp_path / "a.json", coco(objects, images=images))
        for i, folder in ((1, "/data/a/train"), (2, "/data/b/train"), (3, "x/b/val"), (3, "val")):
            found = region(path, f"{folder}/photo.jpg")
            assert found is not None
            assert found.inside().sum() == i, folder
        with pytest.raises(
            InputError, match=r"^train/photo.jpg: annotation: 2 images are called photo.jpg, and the folders"
        ):
            region(path, "train/photo.jpg")

    def test_a_single_xml_is_of_its_own_name_and_of_the_one_inside(self, tmp_path: Path) -> None:
        path = write(tmp_path / "other.xml", voc(voc_object("dog", *BOX)))
        assert region(path, "x/photo.jpg") is not None
        assert region(path, "x/other.png") is not None
        assert region(path, "x/third.png") is None

    def test_xml_and_masks_by_stem_in_folders(self, tmp_path: Path) -> None:
        for folder, width in (("a", 3), ("b", 4)):
            (tmp_path / folder).mkdir()
            write(tmp_path / folder / "photo.one.xml", voc(voc_object("dog", 0, 0, width, 1)))
        for folder, width in (("a", 3), ("b", 4)):
            found = region(tmp_path, f"/images/{folder}/photo.one.jpeg")
            assert found is not None
            assert found.inside().sum() == width

    def test_samples_and_archives(self, tmp_path: Path) -> None:
        (sample,) = expand(["sample:chelsea"])
        image = sample.load()
        path = write(
            tmp_path / "a.json", coco([{"bbox": [0, 0, 9, 9]}], images=[{"id": 1, "file_name": "chelsea.png"}])
        )
        assert Annotations(path).of(sample, image, model()) is not None
        np.savez(tmp_path / "some.npz", images=np.zeros((3, HEIGHT, WIDTH, 3), np.uint8))
        (tmp_path / "masks").mkdir()
        PIL.fromarray(rectangle()).save(tmp_path / "masks" / "some.npz#1.png")
        found = [Annotations(tmp_path / "masks").of(s, s.load(), model()) for s in expand([str(tmp_path / "some.npz")])]
        assert [r is not None for r in found] == [False, True, False]

    def test_another_size_is_an_error_that_names_both(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", coco([{"bbox": [0, 0, 5, 5]}]))
        with pytest.raises(InputError, match=r"made at 60 x 40 pixels, but the image has 40 x 60"):
            Annotations(path).of(source("photo.jpg"), blank(WIDTH, HEIGHT), model())
        text = voc(voc_object("dog", *BOX), size="")
        assert region(write(tmp_path / "photo.xml", text)) is not None


class TestWhichClass:
    imagenet = load_labels("imagenet")

    def found(self, categories: list[dict], f: SimpleNamespace) -> dict[str, tuple[int, ...] | None]:
        from attrsens.engine.annotations import classes_of

        known = [Category(c.get("name", ""), c.get("id"), c.get("wnid"), c.get("imagenet")) for c in categories]
        return {c.name: classes for c, classes in classes_of(known, f).items()}

    def test_coco_ids_are_no_imagenet_indices(self) -> None:
        f = model(self.imagenet.names, self.imagenet.wnids)
        names = {1: "person", 3: "car", 17: "cat", 18: "dog"}
        assert set(self.found([{"id": i, "name": n} for i, n in names.items()], f).values()) == {None}
        assert self.found([{"id": 17}], f) == {"": None}
        more = self.found([{"id": 17, "name": "cat"}, {"id": 59, "name": "pizza"}], f)
        assert more == {"cat": (), "pizza": (963,)}

    def test_words_that_mean_a_class(self) -> None:
        f = model(self.imagenet.names, self.imagenet.wnids)
        for word in ("tench", "Tench", "tench, Tinca tinca", "n01440764", "0"):
            assert self.found([{"id": 5, "name": word}], f) == {word: (0,)}, word
        assert self.found([{"id": 5, "name": "x", "wnid": "n01440764"}], f) == {"x": (0,)}
        assert self.found([{"name": "n99999999"}], f) == {"n99999999": ()}

    def test_a_shared_label_is_all_its_classes_unless_the_id_is_one(self) -> None:
        assert self.found([{"id": 5, "name": "crane"}], model()) == {"crane": (2, 3)}
        assert self.found([{"id": 3, "name": "crane"}], model()) == {"crane": (3,)}

    def test_imagenet_indices_go_by_synset_and_only_for_imagenets_classes(self) -> None:
        dog = {"id": 18, "name": "dog", "imagenet": (151, 152)}
        assert self.found([dog], model(self.imagenet.names, self.imagenet.wnids)) == {"dog": (151, 152)}
        assert self.found([dog], model(self.imagenet.names[::-1], self.imagenet.wnids[::-1])) == {"dog": (848, 847)}
        assert self.found([dog], model([str(i) for i in range(1000)])) == {"dog": (151, 152)}
        assert self.found([dog], model(("cat", "dog"))) == {"dog": (1,)}
        assert self.found([{"id": 1, "name": "person", "imagenet": ()}], model(self.imagenet.names)) == {"person": ()}

    def test_digits_are_labels_first(self) -> None:
        f = model([str(9 - i) for i in range(10)])
        assert self.found([{"name": "3"}], f) == {"3": (6,)}

    def test_unknown_words_count_for_every_class_until_one_is_known(self, tmp_path: Path) -> None:
        none = region(write(tmp_path / "a.xml", voc(voc_object("thing", *BOX) + voc_object("other", 0, 0, 1, 1))))
        assert none is not None
        assert none.of(0) is not None
        assert len(none.of(0).things) == 2
        some = region(write(tmp_path / "b.xml", voc(voc_object("dog", *BOX) + voc_object("other", 0, 0, 1, 1))))
        assert some is not None
        assert [t.label for t in some.of(1).things] == ["dog"]
        assert some.of(0) is None

    def test_an_image_without_the_known_category_has_no_region_of_it(self, tmp_path: Path) -> None:
        """The naive reading, by image, would let a person stand for every class."""
        categories = [{"id": 7, "name": "person"}, {"id": 8, "name": "dog"}]
        found = region(write(tmp_path / "a.json", coco([{"bbox": [0, 0, 9, 9]}], categories)))
        assert found is not None
        assert found.of(1) is None

    def test_values_of_masks(self, tmp_path: Path) -> None:
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[:5], values[5:10] = 4, 9
        PIL.fromarray(values).save(tmp_path / "photo.png")
        found = region(tmp_path)
        assert found is not None
        assert [t.classes for t in found.things] == [None, None]
        write(tmp_path / "classes.csv", "value,class\n4,dog\n")
        found = region(tmp_path)
        assert found is not None
        assert [(t.label, t.classes) for t in found.things] == [("dog", (1,)), ("9", ())]


def test_a_region_of_a_class_leaves_out_what_nobody_named() -> None:
    named, nameless = Thing("a", (1,), np.ones((2, 3), np.float32)), Thing("", None, np.ones((2, 3), np.float32))
    found = Region("mask", (named, nameless)).of(1)
    assert found is not None
    assert found.things == (named,)
    assert Region("mask", (named, nameless)).of(2) is None
    assert Region("mask", (nameless, nameless)).of(2) is not None


def test_region_hash_depends_on_all_of_it() -> None:
    cover = np.zeros((2, 3), np.float32)
    first = Region("box", (Thing("a", (1,), cover),))
    same = Region("box", (Thing("a", (1,), cover.copy()),))
    others = [
        Region("mask", first.things),
        Region("box", (Thing("a", None, cover),)),
        Region("box", (Thing("a", (1,), cover + 1),)),
        Region("box", (Thing("a", (1,), cover.reshape(3, 2)),)),
    ]
    assert first.sha256 == same.sha256
    assert len({first.sha256, *(r.sha256 for r in others)}) == 5


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
OUTSIDE = (
    '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
)
BAD_FILES = {
    "bomb.xml": (BOMB, "declares a document type"),
    "outside.xml": (OUTSIDE, "declares a document type"),
    "deep.xml": ("<annotation>" + "<a>" * 100_000, "elements more than 50 deep"),
    "cut.xml": ("<annotation><object>", "not XML that is read"),
    "encoding.xml": ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not XML that is read"),
    "html.xml": ("<html></html>", "not a VOC annotation"),
    "large.xml": ("<annotation>" + " " * (5 * 2**20) + "</annotation>", "5 MiB; annotations up to 4 MiB are read"),
    "list.json": ("[]", "not a COCO file"),
    "deep.json": ('{"images":' + "[" * 200_000, "not a COCO file"),
    "text.json": ("no json", "not a COCO file"),
    "empty.json": ("", "not a COCO file"),
    "lacks.json": ('{"images": []}', "not a COCO file"),
    "type.json": ('{"images": [{"id": 1.5, "file_name": "a"}], "annotations": []}', "not a COCO file"),
    "long.json": ('{"images": [{"id": 1' + "0" * 6000 + ', "file_name": "a"}], "annotations": []}', "not a COCO file"),
    "twice.json": ('{"images":[{"id":1,"file_name":"a"},{"id":1,"file_name":"b"}],"annotations":[]}', "have the id"),
    "file.txt": ("", "is none of these"),
}  # fmt: skip


class TestHostile:
    @pytest.mark.parametrize("name", BAD_FILES)
    def test_bad_files_are_refused_before_any_work(self, tmp_path: Path, name: str) -> None:
        text, message = BAD_FILES[name]
        with pytest.raises(attrsens.AttrsensError, match=message) as caught:
            Annotations(write(tmp_path / name, text))
        assert type(caught.value) is attrsens.AttrsensError
        assert str(caught.value).startswith("annotations: ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    def test_bad_paths(self, tmp_path: Path) -> None:
        (tmp_path / "none").mkdir()
        (tmp_path / "both").mkdir()
        write(tmp_path / "both" / "a.xml", voc(""))
        write(tmp_path / "both" / "a.png", "")
        for suffix in ("json", "xml", "png"):
            os.mkfifo(tmp_path / f"pipe.{suffix}")
        for name, message in (
            ("absent.json", "no file or folder"),
            ("x" * 5000, "no file or folder"),
            ("none", "no .xml or .png file"),
            ("both", "both .xml and .png files"),
            ("pipe.json", "not a regular file"),
            ("pipe.xml", "not a regular file"),
            ("pipe.png", "not a regular file"),
        ):
            with pytest.raises(attrsens.AttrsensError, match=message):
                Annotations(tmp_path / name)

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ({"bbox": [0, 0, -5, 5]}, "ends before it begins"),
            ({"bbox": [0, 0, 5]}, "object 1 of photo.jpg"),
            ({"bbox": [0, 0, 1e300, 5]}, "not finite"),
            ({"bbox": "all"}, "object 1 of photo.jpg"),
            ({}, "object 1 of photo.jpg"),
            ({"segmentation": [[1, 2, 3, 4]]}, "three or more points"),
            ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "three or more points"),
            ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "object 1 of photo.jpg"),
            ({"segmentation": [[0.0] * 200_002]}, "more than 200,000 numbers"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 2]}}, "do not add up"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}}, "do not add up"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [2**62, 2**62, 2**62, 2**62]}}, "do not add up"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [10**30]}}, "object 1"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "é"}}, "damaged"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o" * 100}}, "damaged"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o"}}, "cut off"),
            ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, "run lengths are of 1000000000 x"),
        ],
    )
    def test_bad_objects_fail_their_image_only(self, tmp_path: Path, item: dict, message: str) -> None:
        images = [{"id": i, "file_name": f"{n}.jpg"} for i, n in ((1, "photo"), (2, "fine"))]
        path = write(tmp_path / "a.json", coco([item, {"image_id": 2, "bbox": [0, 0, 5, 5]}], images=images))
        with pytest.raises(InputError, match=message) as caught:
            region(path)
        assert str(caught.value).startswith("photo.jpg: annotation: object 1")
        assert len(str(caught.value)) < 400
        assert region(path, "fine.jpg") is not None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (voc("<object><name>dog</name><bndbox/></object>"), "object 1, 'dog': bndbox"),
            (voc(voc_object("dog", 5, 5, 2, 9)), "ends before it begins"),
            (voc(voc_object("dog", 0, 0, float("nan"), 9)), "not finite"),
            (voc(voc_object("dog", 0, 0, float("inf"), 9)), "not finite"),
            (voc("", "<size><width>many</width><height>4</height></size>"), "not in whole pixels"),
            (voc("".join(voc_object("dog", 0, 0, 1, 1) for _ in range(501))), "501 objects; up to 500"),
            (BOMB, "declares a document type"),
        ],
    )
    def test_bad_xml_in_a_folder_fails_its_image_only(self, tmp_path: Path, text: str, message: str) -> None:
        write(tmp_path / "photo.xml", text)
        write(tmp_path / "fine.xml", voc(voc_object("dog", *BOX)))
        with pytest.raises(InputError, match=message):
            region(tmp_path)
        assert region(tmp_path, "fine.jpg") is not None

    def test_bad_masks(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        for picture, message in (
            (PIL.new("RGB", (WIDTH, HEIGHT)), "pixel mode RGB"),
            (PIL.new("L", (WIDTH, HEIGHT + 1), 3), "made at 60 x 41 pixels"),
            (PIL.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)), "up to 500"),
        ):
            picture.save(path)
            with pytest.raises(InputError, match=message):
                region(tmp_path)
        PIL.fromarray(rectangle()).save(path)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(InputError, match="not a PNG that is read"):
            region(tmp_path)
        header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big")
        chunk = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
        import zlib

        path.write_bytes(header + chunk + zlib.crc32(chunk).to_bytes(4, "big"))
        with pytest.raises(InputError, match=r"million pixels|not a PNG"):
            region(tmp_path)
        write(tmp_path / "classes.csv", "1\n")
        with pytest.raises(attrsens.AttrsensError, match="needs rows of value,class"):
            Annotations(tmp_path)


@needs_data
def test_real_boxes() -> None:
    """The union of the boxes takes the share that the data's makers computed; classes are the files' own."""
    folder = Path(str(DATA)) / "boxes"
    annotations = Annotations(folder / "annotations.json")
    standard = load_labels("imagenet")
    f = model(standard.names, standard.wnids)
    rows = json.loads((folder / "annotations.json").read_text())["images"][::5]
    assert len(rows) == 130
    for row in rows:
        found = annotations.of(source(folder / row["file_name"]), blank(227, 227), f)
        assert found is not None
        assert {t.classes for t in found.things} == {(row["class_index"],)}
        touched = found.inside(1e-6).mean()  # they counted every pixel that a box touches
        assert abs(touched - row["box_union_area"]) < 0.003


@needs_data
def test_real_masks(lite0: attrsens.Classifier) -> None:
    """Polygons and label pictures of the same objects agree after lite0's resize and crop."""
    folder = Path(str(DATA)) / "masks"
    drawn, painted = Annotations(folder / "annotations.json"), Annotations(folder / "labels")
    ious = []
    for one in expand([folder / "images"])[::5]:
        image = one.load()
        a, b = drawn.of(one, image, lite0), painted.of(one, image, lite0)
        assert a is not None
        assert b is not None
        assert a.kind == b.kind == "mask"
        assert a.things[0].cover.shape == (224, 224)
        ious.append((a.inside() & b.inside()).sum() / (a.inside() | b.inside()).sum())
    assert len(ious) == 14
    assert min(ious) > 0.9
    assert np.median(ious) > 0.98
