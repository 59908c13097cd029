"""What a command is given: files, folders, patterns, samples, archives; ground truth; class names."""

from __future__ import annotations

import importlib.util
import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, needs_data
from PIL import Image as PIL

from attrsens.engine.inputs import Truth, class_of, expand
from attrsens.errors import AttrsensError, InputError, NothingFound
from attrsens.models.labels import Labels, load_labels
from attrsens.samples import samples


def save(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.new("RGB", size, colour).save(path)
    return path


def names(sources) -> list[str]:
    return [source.name for source in sources]


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# -- files, folders, patterns, samples -------------------------------------------------------------------------------


def test_a_file_is_itself_and_is_not_decoded_yet(tmp_path):
    good, bad = save(tmp_path / "a.png"), tmp_path / "bad.png"
    bad.write_bytes(b"nonsense")
    first, second = expand([str(good), bad])
    assert names([first, second]) == [str(good), str(bad)]
    assert first.file == good
    assert first.load().size == (4, 6)
    with pytest.raises(InputError, match="not an image"):
        second.load()


def test_files_keep_their_order_and_may_repeat(tmp_path):
    b, a = save(tmp_path / "b.png"), save(tmp_path / "a.png")
    assert names(expand([str(b), str(a), str(b)])) == [str(b), str(a), str(b)]


def test_a_folder_is_read_recursively_and_sorted(tmp_path):
    for name in ("b.png", "a.JPG", "sub/deep/c.webp", "sub/a.bmp", "z/1.tiff", "m.jpeg"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "sub" / "list.csv").write_text("x,y")
    found = [Path(n).relative_to(tmp_path).as_posix() for n in names(expand([str(tmp_path)]))]
    assert found == ["a.JPG", "b.png", "m.jpeg", "sub/a.bmp", "sub/deep/c.webp", "z/1.tiff"]


def test_links_that_lead_out_of_a_folder_are_skipped(tmp_path):
    outside, folder = save(tmp_path / "secret.png"), tmp_path / "folder"
    inside = save(folder / "inside.png")
    (folder / "escape.png").symlink_to(outside)
    (folder / "relative.png").symlink_to("../secret.png")
    (folder / "alias.png").symlink_to(inside)
    (folder / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    assert [Path(n).name for n in names(expand([str(folder)]))] == ["alias.png", "inside.png"]


def test_a_link_that_is_named_is_followed(tmp_path):
    target = save(tmp_path / "real" / "picture.png", (1, 2, 3))
    file, folder = tmp_path / "file.png", tmp_path / "folder"
    file.symlink_to(target)
    folder.symlink_to(target.parent, target_is_directory=True)
    assert expand([str(file)])[0].load().pixels[0, 0].tolist() == [1, 2, 3]
    assert names(expand([str(folder)])) == [str(folder / "picture.png")]


def test_a_link_in_a_circle_is_that_images_failure(tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    (source,) = expand([str(loop)])
    with pytest.raises(InputError, match=r"loop\.png: cannot be opened"):
        source.load()


def test_a_pattern_takes_what_matches_sorted(tmp_path):
    for name in ("b.png", "a.png", "c.jpg", "sub/d.png"):
        save(tmp_path / name)
    assert [Path(n).name for n in names(expand([str(tmp_path / "*.png")]))] == ["a.png", "b.png"]
    deep = [Path(n).name for n in names(expand([str(tmp_path / "**" / "*.png")]))]
    assert deep == ["a.png", "b.png", "d.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    odd = save(tmp_path / "a[1].png")
    save(tmp_path / "a1.png")
    assert names(expand([str(odd)])) == [str(odd)]


def test_samples_come_by_name_and_the_first_by_default():
    first, default = expand(["sample:coffee", "sample:chelsea"]), expand([])
    assert names(first) == ["sample:coffee", "sample:chelsea"]
    assert names(default) == ["sample:chelsea"]
    assert first[0].load().name == "sample:coffee"
    assert names(expand(["sample:c*"])) == [f"sample:{name}" for name in samples() if name.startswith("c")]
    assert len(expand(["sample:*"])) == len(samples()) > 8
    with pytest.raises(NothingFound, match="matches no sample"):
        expand(["sample:x*"])
    assert default[0].load().size == (300, 451)


def test_the_limit_cuts_the_end_off(tmp_path):
    for name in "abcd":
        save(tmp_path / f"{name}.png")
    assert [Path(n).name for n in names(expand([str(tmp_path), "sample:coffee"], limit=3))] == [
        "a.png",
        "b.png",
        "c.png",
    ]
    assert len(expand([str(tmp_path), "sample:coffee"], limit=9)) == 5


def test_the_frame_reaches_the_decoder(tmp_path):
    path = tmp_path / "two.gif"
    PIL.new("RGB", (4, 4), "red").save(path, save_all=True, append_images=[PIL.new("RGB", (4, 4), "blue")])
    assert expand([str(path)], frame=1)[0].load().pixels[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(InputError, match="2 frames"):
        expand([str(path)])[0].load()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            "none.png",
            "none.png: no such file, folder or pattern; 'attrsens list samples' names packaged pictures",
        ),
        ("no/such/folder/", "no/such/folder/: no such file"),
        ("x" * 300, "no such file"),
        ("a\0b.png", "no such file"),
        ("sample:chelsae", "unknown sample 'chelsae'; did you mean 'chelsea'? samples: chelsea, coffee, camera"),
        ("", "no such file"),
    ],
)
def test_what_does_not_exist_is_a_mistake_of_usage(item, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AttrsensError) as caught:
        expand([item])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("item", ["folder", "*.png", "folder/*"])
def test_a_folder_or_pattern_without_an_image_finds_nothing(item, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "notes.txt").touch()
    with pytest.raises(NothingFound) as caught:
        expand([item])
    assert str(caught.value).startswith(f"{item}: ")
    assert caught.value.exit_code == 5


# -- arrays and pictures in memory -----------------------------------------------------------------------------------


def test_arrays_are_named_by_position(tmp_path):
    colour, grey = picture(5, 7, 3), picture(5, 7, seed=1)
    sources = expand([colour, str(save(tmp_path / "a.png")), grey, grey[..., None]])
    assert names(sources) == ["array-0", str(tmp_path / "a.png"), "array-2", "array-3"]
    np.testing.assert_array_equal(sources[0].load().pixels, colour)
    np.testing.assert_array_equal(sources[2].load().pixels, grey)
    assert sources[3].load().sha256 == sources[2].load().sha256
    assert sources[0].file is None


@pytest.mark.parametrize(
    "array",
    [
        picture(5, 7, 4),
        picture(2, 5, 7, 3),
        picture(7),
        np.zeros((5, 7, 3), np.float32),
        np.zeros((0, 7, 3), np.uint8),
        np.zeros((5, 7, 3), np.int64),
    ],
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(InputError, match=r"array-0: .*; images are uint8, \(H, W, 3\), \(H, W, 1\) or \(H, W\)"):
        expand([array])[0].load()


def test_a_pillow_picture_goes_through_the_same_table_of_modes_as_a_file():
    pixels = picture(5, 7, 3)
    assert (expand([PIL.fromarray(pixels)])[0].load().pixels == pixels).all()
    clear = expand([PIL.new("RGBA", (2, 1), (0, 0, 0, 0))])[0].load()
    assert (clear.pixels == 255).all()
    assert clear.notes == ("alpha composited on white",)
    wide = expand([PIL.fromarray(np.array([[257 * 5, 257 * 200]], np.uint16))])[0].load()
    assert wide.pixels.tolist() == [[5, 200]]
    with pytest.raises(InputError, match="array-0: pixel mode F"):
        expand([PIL.new("F", (2, 2), 0.5)])[0].load()


# -- npz -------------------------------------------------------------------------------------------------------------


def test_an_npz_of_colour_images_and_labels(tmp_path):
    images = picture(3, 8, 6, 3)
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([4, 2, 7]), more=np.zeros(3))
    path = str(tmp_path / "set.npz")
    sources = expand([path])
    assert names(sources) == [f"{path}#0", f"{path}#1", f"{path}#2"]
    for source, pixels, label in zip(sources, images, (4, 2, 7), strict=True):
        image = source.load()
        np.testing.assert_array_equal(image.pixels, pixels)
        assert (image.label, image.name) == (label, source.name)


def test_an_npz_of_grey_images_without_labels(tmp_path):
    images = picture(3, 8, 6)
    np.savez(tmp_path / "grey.npz", images=images)
    np.savez_compressed(tmp_path / "channel.npz", images=images[..., None])
    for name in ("grey.npz", "channel.npz"):
        found = [source.load() for source in expand([str(tmp_path / name)])]
        np.testing.assert_array_equal(np.stack([image.pixels for image in found]), images)
        assert [image.label for image in found] == [None] * 3


def test_the_limit_counts_images_of_an_npz(tmp_path):
    np.savez(tmp_path / "set.npz", images=picture(5, 4, 4, 3))
    assert len(expand([str(tmp_path / "set.npz")], limit=2)) == 2


def test_a_pattern_opens_npz_archives_too(tmp_path):
    np.savez(tmp_path / "set.npz", images=picture(2, 4, 4, 3))
    assert len(expand([str(tmp_path / "*.npz")])) == 2


def split_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """(everything up to the first scan's data, the rest)."""
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at], data[at:]


@pytest.fixture
def packed(tmp_path):
    """An archive in the layout of the packed CIFAR files, with the pixels a decoder gives for it."""
    header, scans, pixels = b"", [], []
    for i in range(4):
        out = io.BytesIO()
        PIL.fromarray(picture(16, 16, 3, seed=i)).save(out, "JPEG", quality=75)
        head, scan = split_jpeg(out.getvalue())
        assert header in (b"", head)
        header = head
        scans.append(scan)
        pixels.append(np.asarray(PIL.open(out)))
    path = tmp_path / "packed.npz"
    np.savez(
        path,
        header=np.frombuffer(header, np.uint8),
        data=np.frombuffer(b"".join(scans), np.uint8),
        offsets=np.cumsum([0] + [len(s) for s in scans]),
        labels=np.array([3, 1, 4, 1], np.uint8),
        classes=np.array(["a", "b"]),
    )
    return path, np.stack(pixels)


def test_an_npz_of_packed_jpeg_scans(packed):
    path, pixels = packed
    found = [source.load() for source in expand([str(path)])]
    np.testing.assert_array_equal(np.stack([image.pixels for image in found]), pixels)
    assert [image.label for image in found] == [3, 1, 4, 1]
    assert found[2].name == f"{path}#2"


def test_a_damaged_scan_is_that_images_failure(packed):
    path, pixels = packed
    parts = dict(np.load(path))
    start, stop = parts["offsets"][1:3]
    parts["data"][start:stop] = 0xFF
    np.savez(path, **parts)
    sources = expand([str(path)])
    with pytest.raises(InputError, match=r"packed\.npz#1: "):
        sources[1].load()
    np.testing.assert_array_equal(sources[2].load().pixels, pixels[2])


@needs_data
def test_the_packed_cifar_file_reads_as_its_own_loader_reads_it():
    folder = Path(DATA or "")
    spec = importlib.util.spec_from_file_location("load_cifar10", folder / "load_cifar10.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    images, labels, _ = loader.load(folder / "cifar10-test.npz", limit=3)
    found = [source.load() for source in expand([str(folder / "cifar10-test.npz")], limit=3)]
    np.testing.assert_array_equal(np.stack([image.pixels for image in found]), images)
    assert [image.label for image in found] == labels.tolist()


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_pickled_arrays_are_refused_and_not_unpickled(name, tmp_path):
    trap = tmp_path / "ran"
    parts = {"images": picture(1, 4, 4, 3), name: np.array([Payload(trap)], object)}
    np.savez(tmp_path / "evil.npz", **parts)
    with pytest.raises(AttrsensError, match=r"evil\.npz: not an npz archive that is read"):
        expand([str(tmp_path / "evil.npz")])
    assert not trap.exists()


def test_a_pickle_called_npz_is_refused_and_not_unpickled(tmp_path):
    import pickle

    trap, path = tmp_path / "ran", tmp_path / "evil.npz"
    path.write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(AttrsensError, match=r"evil\.npz: not an npz archive that is read"):
        expand([str(path)])
    assert not trap.exists()


def broken_archive(kind: str, path: Path) -> None:
    out = io.BytesIO()
    np.savez_compressed(out, images=picture(4, 16, 16, 3) // 32)
    data = bytearray(out.getvalue())
    if kind == "empty":
        data = bytearray()
    elif kind == "text":
        data = bytearray(b"not an archive")
    elif kind == "cut":
        del data[len(data) // 2 :]
    elif kind == "flipped":
        data[200:400] = bytes(200)  # no deflate stream
    elif kind == "plain array":
        out = io.BytesIO()
        np.save(out, picture(4, 16, 16, 3))
        data = bytearray(out.getvalue())
    elif kind == "zip of text":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("images.npy", "not an array")
        data = bytearray(out.getvalue())
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "flipped", "plain array", "zip of text"])
def test_a_broken_archive_is_a_mistake_of_usage(kind, tmp_path):
    path = tmp_path / "broken.npz"
    broken_archive(kind, path)
    with pytest.raises(AttrsensError, match=r"broken\.npz: ") as caught:
        expand([str(path)])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pictures": picture(2, 4, 4, 3)}, "an npz needs an array 'images'"),
        ({"images": picture(3, 4, 4, 3), "labels": np.array([1, 2])}, "2 labels for 3 images"),
        ({"images": np.uint8(3)}, "images"),
        ({"images": picture(2, 4, 4, 3), "labels": np.array(["cat", "dog"])}, "labels"),
        ({"images": picture(2, 4, 4, 3), "labels": np.array([[1, 0], [0, 1]])}, "labels"),
        ({"images": picture(2, 4, 4, 3), "labels": np.array([0.5, 1.5])}, "labels"),
    ],
)
def test_archives_that_lack_something_say_what(parts, message, tmp_path):
    np.savez(tmp_path / "x.npz", **parts)
    with pytest.raises(AttrsensError, match=message) as caught:
        expand([str(tmp_path / "x.npz")])
    assert caught.value.exit_code == 2


def test_labels_in_a_column_are_read(tmp_path):
    np.savez(tmp_path / "x.npz", images=picture(2, 4, 4, 3), labels=np.array([[7], [9]]))
    assert [source.load().label for source in expand([str(tmp_path / "x.npz")])] == [7, 9]


@pytest.mark.parametrize(
    "parts",
    [
        {"images": np.zeros((0, 4, 4, 3), np.uint8)},
        {"header": np.zeros(1, np.uint8), "data": np.zeros(1, np.uint8), "offsets": np.zeros(1, np.int64)},
        {"header": np.zeros(1, np.uint8), "data": np.zeros(1, np.uint8), "offsets": np.zeros(0, np.int64)},
    ],
)
def test_an_archive_without_an_image_finds_nothing(parts, tmp_path):
    np.savez(tmp_path / "none.npz", **parts)
    with pytest.raises(NothingFound, match="holds no image"):
        expand([str(tmp_path / "none.npz")])


def test_images_of_another_kind_in_an_npz_fail_one_by_one(tmp_path):
    np.savez(tmp_path / "floats.npz", images=np.zeros((2, 4, 4, 3), np.float32))
    sources = expand([str(tmp_path / "floats.npz")])
    assert len(sources) == 2
    with pytest.raises(InputError, match=r"floats\.npz#1: float32 \(4, 4, 3\)"):
        sources[1].load()


def test_a_fifo_called_npz_is_refused_without_waiting(tmp_path):
    path = tmp_path / "pipe.npz"
    os.mkfifo(path)
    errors = []

    def call() -> None:
        try:
            expand([str(path)])
        except AttrsensError as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert [e for e in errors if "pipe.npz" in str(e)], "the call blocks or says nothing"


# -- ground truth ----------------------------------------------------------------------------------------------------


def truth(kind: str | None, source, classifier) -> int | None:
    return Truth(kind).of(source, source.load(), classifier)


def write_csv(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize("word", ["281", "tabby", "Tabby", "n02123045"])
def test_a_csv_names_a_class_by_index_name_or_synset(word, lite0, tmp_path):
    (source,) = expand([str(save(tmp_path / "cat.png"))])
    table = write_csv(tmp_path / "truth.csv", f"file,class\ncat.png,{word}\ndog.png,3\n")
    assert truth(table, source, lite0) == 281


def test_a_csv_may_have_no_header_and_be_written_by_a_spreadsheet(lite0, tmp_path):
    (source,) = expand([str(save(tmp_path / "cat.png"))])
    plain = write_csv(tmp_path / "plain.csv", "cat.png,281\n")
    assert truth(plain, source, lite0) == 281
    marked = write_csv(tmp_path / "marked.csv", "cat.png,281\r\n", encoding="utf-8-sig")
    assert truth(marked, source, lite0) == 281


def test_a_csv_finds_an_image_by_the_name_given_its_path_or_its_file_name(lite0, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a" / "x.png")
    np.savez(tmp_path / "set.npz", images=picture(2, 4, 4, 3))
    given = write_csv(tmp_path / "given.csv", "a/x.png,1\nx.png,2\n")
    base = write_csv(tmp_path / "base.csv", "other.png,1\nx.png,2\n")
    (relative,) = expand(["a/x.png"])
    assert truth(given, relative, lite0) == 1
    assert truth(base, relative, lite0) == 2
    absolute = write_csv(tmp_path / "absolute.csv", f"{tmp_path}/a/x.png,3\n")
    (long,) = expand([str(tmp_path / "a" / "x.png")])
    assert truth(absolute, long, lite0) == 3
    others = write_csv(tmp_path / "others.csv", "sample:coffee,967\nset.npz#1,5\n")
    assert truth(others, expand(["sample:coffee"])[0], lite0) == 967
    assert truth(others, expand(["set.npz"])[1], lite0) == 5


@pytest.mark.parametrize("folder", ["n02123045", "tabby", "281"])
def test_folders_name_a_class_by_synset_name_or_index(folder, lite0, tmp_path):
    save(tmp_path / folder / "x.png")
    (source,) = expand([str(tmp_path)])
    assert truth("folders", source, lite0) == 281


def test_an_npz_brings_its_labels_and_a_csv_overrides_them(lite0, tmp_path):
    np.savez(tmp_path / "set.npz", images=picture(2, 4, 4, 3), labels=np.array([7, 9]))
    sources = expand([str(tmp_path / "set.npz")])
    assert [truth(None, source, lite0) for source in sources] == [7, 9]
    table = write_csv(tmp_path / "t.csv", f"{sources[0].name},1\n{sources[1].name},2\n")
    assert [truth(table, source, lite0) for source in sources] == [1, 2]


def test_without_labels_nothing_is_known(lite0):
    assert truth(None, expand([])[0], lite0) is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dragonfish", "label 'dragonfish' is not a class of this model"),
        ("1000", "label 1000 is out of range: classes are 0 to 999"),
        ("-1", "label -1 is out of range"),
        ("cardigan", "label 'cardigan' names classes 264 and 474; give the index"),
    ],
)
def test_an_unknown_class_is_that_images_failure(word, message, lite0, tmp_path):
    (source,) = expand([str(save(tmp_path / word / "x.png"))])
    table = write_csv(tmp_path / "t.csv", f"x.png,{word}\n")
    for kind in (table, "folders"):
        with pytest.raises(InputError) as caught:
            truth(kind, source, lite0)
        assert str(caught.value).startswith(f"{source.name}: {message}")


def test_an_image_that_the_csv_lacks_is_that_images_failure(lite0, tmp_path):
    (source,) = expand([str(save(tmp_path / "x.png"))])
    table = write_csv(tmp_path / "t.csv", "y.png,3\n")
    with pytest.raises(InputError, match=r"x\.png: .*t\.csv gives no class for it"):
        truth(table, source, lite0)


def test_folders_say_nothing_of_an_array(lite0):
    with pytest.raises(InputError, match="array-0: folders gives no class for it"):
        truth("folders", expand([picture(4, 4, 3)])[0], lite0)


def test_a_csv_that_cannot_be_used_is_a_mistake_of_usage(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.csv").write_bytes("x.png,b\xe4r\n".encode("latin-1"))
    cases = {
        str(tmp_path / "none.csv"): "labels: no file .*none.csv; give a csv of file,class or the word folders",
        write_csv(tmp_path / "one.csv", "x.png\ny.png\n"): "one.csv needs two columns, file and class index or name",
        write_csv(tmp_path / "empty.csv", ""): "empty.csv needs two columns",
        str(tmp_path / "latin.csv"): "latin.csv cannot be read",
        str(tmp_path / "folder"): "labels: no file .*folder",
    }
    for path, message in cases.items():
        with pytest.raises(AttrsensError, match=message) as caught:
            Truth(path)
        assert caught.value.exit_code == 2


# -- class names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "index"), [("281", 281), ("0", 0), ("tabby", 281), ("TABBY", 281)])
def test_a_class_is_found_by_index_and_by_name_whatever_its_case(word, index, lite0):
    assert load_labels("imagenet").index(word) == index
    assert class_of(word, lite0) == index


def test_a_synset_is_a_class_where_the_set_has_them():
    assert load_labels("imagenet").index("n02123045") == 281
    with pytest.raises(AttrsensError, match="is not a class of this model"):
        load_labels("cifar10").index("n02123045")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cardigan", "target 'cardigan' names classes 264 and 474; give the index"),
        ("Cardigan", "target 'Cardigan' names classes 264 and 474; give the index"),
        (
            "tabby catt",
            "target 'tabby catt' is not a class of this model; did you mean tabby (281), lab coat (617)?",
        ),
        ("zzzzqqq", "target 'zzzzqqq' is not a class of this model; give a class name or an index from 0 to 999"),
        ("1000", "target 1000 is out of range: classes are 0 to 999"),
        ("-1", "target -1 is out of range: classes are 0 to 999"),
        ("--1", "target '--1' is not a class of this model; give a class name or an index from 0 to 999"),
        ("²", "target '²' is not a class of this model; give a class name or an index from 0 to 999"),
    ],
)
def test_a_word_that_is_no_class_says_what_would_be(word, message):
    with pytest.raises(AttrsensError) as caught:
        load_labels("imagenet").index(word)
    assert str(caught.value) == message


def test_a_word_of_a_longer_name_finds_it():
    with pytest.raises(AttrsensError, match=r"did you mean .*tennis ball \(852\)"):
        load_labels("imagenet").index("tennis bal")
    with pytest.raises(AttrsensError, match=r"did you mean brown bear \(1\)\?"):
        Labels(("cup", "brown bear")).index("brown")


def test_cifar10_has_its_ten_classes():
    assert load_labels("cifar10").names == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )


def test_class_names_come_from_a_file_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat\n dog \n\nm\u00f6we\r\n", encoding="utf-8")
    assert load_labels(str(path)).names == ("cat", "dog", "m\u00f6we")


def test_a_file_of_class_names_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes(b"b\xe4r\n")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "none.txt": "classes: no file .*none.txt; give a text file, one name a line, or imagenet or cifar10 or mnist",
        "empty.txt": "empty.txt holds no name",
        "latin.txt": "latin.txt is not UTF-8 text",
        "folder": "folder: not a regular file",
    }.items():
        with pytest.raises(AttrsensError, match=message) as caught:
            load_labels(str(tmp_path / name))
        assert caught.value.exit_code == 2
