"""Decoding untrusted files: every clause of the design's rule on images, and torchvision's geometry."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PIL

from attrsens import images
from attrsens.errors import AttrsensError, InputError
from attrsens.images import Image, Preprocess, decode, decode_bytes, read_bytes


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise that no two pixels of which are likely to share, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: PIL.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand; `rows` is the raw picture with a filter byte before each row."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def in_time(function, *args, seconds: float = 10):
    """The exception or result of a call that must not block."""
    result = []

    def call() -> None:
        try:
            result.append(function(*args))
        except Exception as error:  # handed to the caller
            result.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, "the call blocks"
    return result[0]


# -- what is not an image --------------------------------------------------------------------------------------------


def test_a_file_of_more_bytes_than_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse
    with pytest.raises(InputError, match=r"large\.png: 64 MiB; images up to 64 MiB are read"):
        decode(path)


def test_the_byte_limit_is_inclusive(tmp_path):
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    assert read_bytes(path, 10) == b"0123456789"
    with pytest.raises(InputError, match="ten"):
        read_bytes(path, 9)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(10_000, 5_001, id="above the own limit"),
        pytest.param(10_000, 10_000, id="above Pillow's warning"),
        pytest.param(20_000, 20_000, id="above Pillow's error"),
    ],
)
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(width, height):
    bomb = png(width, height, 1, 0, b"\0")
    with pytest.raises(InputError, match=r"bomb\.png.* pixels.* 50 million"):
        decode_bytes(bomb, "bomb.png")


def test_the_pixel_limit_is_inclusive(monkeypatch):
    data = encoded(PIL.fromarray(picture(4, 5)), "PNG")
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    assert decode_bytes(data, "x").size == (4, 5)
    monkeypatch.setattr(images, "MAX_PIXELS", 19)
    with pytest.raises(InputError, match="5 x 4 pixels"):
        decode_bytes(data, "x")


def test_the_pixel_limit_holds_for_the_chosen_frame_too(monkeypatch):
    small, large = PIL.new("L", (2, 2)), PIL.new("L", (30, 20))
    data = encoded(small, "TIFF", save_all=True, append_images=[large])
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    assert decode_bytes(data, "x", frame=0).size == (2, 2)
    with pytest.raises(InputError, match="30 x 20 pixels"):
        decode_bytes(data, "x", frame=1)


def test_pillows_bomb_limit_is_an_error_and_no_warning(monkeypatch):
    monkeypatch.setattr(PIL, "MAX_IMAGE_PIXELS", 15)  # Pillow warns above 15 and raises above 30
    for pixels in (picture(4, 5), picture(8, 8)):
        with pytest.raises(InputError, match="more pixels than are read"):
            decode_bytes(encoded(PIL.fromarray(pixels), "PNG"), "x")


FOREIGN = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "text": b"not a picture\n" * 20,
    "html": b"<!doctype html><html><body>404</body></html>",
    "zeros": bytes(1000),
    "pdf": encoded(PIL.new("RGB", (8, 8)), "PDF"),
    "eps": encoded(PIL.new("RGB", (8, 8)), "EPS"),
    "ico": encoded(PIL.new("RGB", (16, 16)), "ICO"),
    "tga": encoded(PIL.new("RGB", (8, 8)), "TGA"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_formats_outside_the_list_are_refused_whatever_they_are_called(kind, tmp_path):
    path = tmp_path / f"{kind}.png"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(InputError, match=rf"{kind}\.png: not an image that is read \(PNG, JPEG, WEBP, BMP, TIFF"):
        decode(path)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "JPEG", "WEBP"])
def test_formats_in_the_list_are_known_by_content(kind, tmp_path):
    path = tmp_path / "picture.dat"
    path.write_bytes(encoded(PIL.new("RGB", (16, 8), (200, 30, 60)), kind))
    found = decode(path)
    assert found.size == (8, 16)
    assert found.name == str(path)
    assert np.abs(found.pixels.astype(int) - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(kind, share, tmp_path):
    data = encoded(PIL.fromarray(picture(64, 64)), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match="cut: "):
        decode(path)


def test_a_damaged_checksum_is_refused():
    data = bytearray(encoded(PIL.fromarray(picture(16, 16)), "PNG"))
    data[60] ^= 0xFF  # inside the pixel data
    with pytest.raises(InputError, match=r"x\.png: damaged image"):
        decode_bytes(bytes(data), "x.png")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(InputError, match=r"empty\.png: the file is empty"):
        decode(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: cannot be opened \(No such file"):
        decode(tmp_path / "none.png")


def test_a_directory_is_refused(tmp_path):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder\.png: not a regular file"):
        decode(folder)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    error = in_time(decode, path)
    assert isinstance(error, InputError)
    assert "pipe.png: not a regular file" in str(error)


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="needs /dev/zero")
def test_a_device_is_refused(tmp_path):
    link = tmp_path / "zero.png"
    link.symlink_to("/dev/zero")
    error = in_time(decode, link)
    assert isinstance(error, InputError)
    assert "zero.png: not a regular file" in str(error)


def test_refusing_leaves_no_file_open(tmp_path):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    open_files = Path("/dev/fd")
    before = len(list(open_files.iterdir()))
    for name in ("folder.png", "pipe.png") * 5:
        assert isinstance(in_time(decode, tmp_path / name), InputError)
    assert len(list(open_files.iterdir())) == before


# -- frames ----------------------------------------------------------------------------------------------------------


def animation(kind: str) -> bytes:
    red, blue = PIL.new("RGB", (8, 6), (255, 0, 0)), PIL.new("RGB", (8, 6), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(red, kind, save_all=True, append_images=[blue, red], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_and_multi_page_files_are_refused_unless_a_frame_is_chosen(kind):
    data = animation(kind)
    with pytest.raises(InputError, match=r"x: has 3 frames; choose one with --frame 0\.\.2"):
        decode_bytes(data, "x")
    first, second = (decode_bytes(data, "x", frame=i) for i in (0, 1))
    assert (first.pixels == (255, 0, 0)).all()
    assert (second.pixels == (0, 0, 255)).all()
    assert second.notes == ("frame 1 of 3",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_out_of_range_is_refused(kind, frame):
    with pytest.raises(InputError, match=rf"x: has no frame {frame} \(frames 0 to 2\)"):
        decode_bytes(animation(kind), "x", frame=frame)


def test_a_still_has_frame_zero_only():
    data = encoded(PIL.fromarray(picture(5, 7)), "PNG")
    assert decode_bytes(data, "x", frame=0).sha256 == decode_bytes(data, "x").sha256
    assert decode_bytes(data, "x", frame=0).notes == ()
    with pytest.raises(InputError, match="has no frame 1"):
        decode_bytes(data, "x", frame=1)


def test_the_first_picture_of_a_camera_file_with_previews_is_taken():
    data = encoded(PIL.new("RGB", (16, 8), "red"), "MPO", save_all=True, append_images=[PIL.new("RGB", (8, 8), "blue")])
    found = decode_bytes(data, "x")
    assert found.size == (8, 16)
    assert found.notes == ("first picture of an MPO file",)


# -- orientation and modes -------------------------------------------------------------------------------------------

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, kind):
    exif = PIL.Exif()
    exif[0x0112] = orientation
    pixels = picture(6, 9)
    found = decode_bytes(encoded(PIL.fromarray(pixels), kind, exif=exif), "x")
    np.testing.assert_array_equal(found.pixels, TURNS[orientation](pixels))


def test_exif_orientation_of_a_jpeg_swaps_its_sides():
    exif = PIL.Exif()
    exif[0x0112] = 6
    assert decode_bytes(encoded(PIL.new("RGB", (80, 60)), "JPEG", exif=exif), "x").size == (80, 60)


def test_mode_1_becomes_black_and_white_grey():
    bits = PIL.fromarray(np.array([[True, False, True]]))
    assert bits.mode == "1"
    assert decode_bytes(encoded(bits, "PNG"), "x").pixels.tolist() == [[255, 0, 255]]


def test_mode_l_stays_grey():
    grey = picture(5, 7)[..., 0]
    found = decode_bytes(encoded(PIL.fromarray(grey), "PNG"), "x")
    np.testing.assert_array_equal(found.pixels, grey)


def test_mode_rgb_stays():
    pixels = picture(5, 7)
    found = decode_bytes(encoded(PIL.fromarray(pixels), "PNG"), "x")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.notes == ()


def palette_picture() -> PIL.Image:
    image = PIL.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("L")
    image = PIL.frombytes("P", image.size, image.tobytes())
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    return image


def test_mode_p_takes_its_palettes_colours():
    found = decode_bytes(encoded(palette_picture(), "PNG"), "x")
    assert found.pixels.tolist() == [[[10, 20, 30], [200, 100, 50]], [[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind):
    found = decode_bytes(encoded(palette_picture(), kind, transparency=1), "x")
    assert found.pixels.tolist() == [[[10, 20, 30], [255, 255, 255]], [[1, 2, 3], [255, 255, 255]]]
    assert found.notes == ("alpha composited on white",)


def test_mode_rgba_is_composited_on_white():
    colours = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    found = decode_bytes(encoded(PIL.fromarray(colours), "PNG"), "x")
    assert found.pixels.tolist() == [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    assert found.notes == ("alpha composited on white",)


def test_mode_la_is_composited_on_white():
    greys = PIL.frombytes("LA", (3, 1), bytes([100, 255, 100, 0, 5, 51]))
    found = decode_bytes(encoded(greys, "PNG"), "x")
    assert found.pixels.tolist() == [[[100] * 3, [255] * 3, [205] * 3]]
    assert found.notes == ("alpha composited on white",)


def test_a_transparent_colour_of_a_plain_picture_becomes_white():
    rgb = PIL.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    assert decode_bytes(encoded(rgb, "PNG", transparency=(1, 2, 3)), "x").pixels.tolist() == [[[255] * 3, [9] * 3]]
    grey = PIL.fromarray(np.array([[7, 9]], np.uint8))
    assert decode_bytes(encoded(grey, "PNG", transparency=7), "x").pixels.tolist() == [[[255] * 3, [9] * 3]]


def test_mode_cmyk_is_converted_and_noted():
    inks = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    found = decode_bytes(encoded(PIL.frombytes("CMYK", (3, 1), inks.tobytes()), "TIFF"), "x")
    assert found.pixels.tolist() == [[[255, 255, 255], [0, 0, 0], [0, 255, 255]]]
    assert found.notes == ("CMYK converted without a colour profile",)


def test_16_bit_grey_is_divided_by_257():
    steps = np.arange(256, dtype=np.uint16)[None] * 257
    found = decode_bytes(encoded(PIL.fromarray(steps), "PNG"), "x")
    assert found.pixels.tolist() == [list(range(256))]
    assert found.notes == ("16 bits divided by 257",)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (128, 0), (129, 1), (257 * 7 - 128, 7), (65535, 255)])
def test_16_bit_grey_is_rounded(value, expected):
    data = encoded(PIL.fromarray(np.array([[value]], np.uint16)), "PNG")
    assert decode_bytes(data, "x").pixels.tolist() == [[expected]]


def test_16_bit_big_endian_tiff_reads_the_same():
    steps = PIL.frombytes("I;16B", (256, 1), (np.arange(256) * 257).astype(">u2").tobytes())
    assert decode_bytes(encoded(steps, "TIFF"), "x").pixels.tolist() == [list(range(256))]


def test_a_16_bit_grey_png_with_a_transparent_colour_is_white_there():
    values = np.array([257 * 9, 257 * 200], ">u2").tobytes()
    body = struct.pack(">H", 257 * 9)
    extra = struct.pack(">I", 2) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    found = decode_bytes(png(2, 1, 16, 0, b"\0" + values, extra), "x")
    assert np.atleast_3d(found.pixels)[0, :, 0].tolist() == [255, 200]
    assert "alpha composited on white" in found.notes


def test_16_bit_rgb_png_keeps_the_high_byte_of_every_value():
    values = np.arange(0, 65536, 85, dtype=np.uint16)[: 256 * 3]
    data = png(256, 1, 16, 2, b"\0" + values.astype(">u2").tobytes())
    found = decode_bytes(data, "x")
    np.testing.assert_array_equal(found.pixels.ravel(), values >> 8)
    assert np.abs(found.pixels.ravel() - values / 257).max() < 1
    exact = (np.arange(256).repeat(3) * 257).astype(">u2")
    found = decode_bytes(png(256, 1, 16, 2, b"\0" + exact.tobytes()), "x")
    np.testing.assert_array_equal(found.pixels.ravel(), np.arange(256).repeat(3))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_modes_are_refused(mode):
    data = encoded(PIL.new(mode, (4, 3), 1), "TIFF")
    with pytest.raises(InputError, match=f"x: pixel mode {mode} has no defined range; save it as 8 or 16 bits"):
        decode_bytes(data, "x")


def test_a_mode_outside_the_table_is_refused():
    with pytest.raises(InputError, match="pixel mode LAB"):
        decode_bytes(encoded(PIL.new("LAB", (4, 3)), "TIFF"), "x")


# -- hash ------------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_the_decoded_pixels():
    image = PIL.fromarray(picture(9, 11))
    hashes = {decode_bytes(encoded(image, kind), kind).sha256 for kind in ("PNG", "BMP", "TIFF", "PPM")}
    assert hashes == {Image("memory", picture(9, 11)).sha256}
    assert Image("memory", picture(9, 11, seed=1)).sha256 not in hashes


def test_the_hash_tells_shapes_apart():
    row = np.arange(12, dtype=np.uint8)
    shapes = [(2, 6), (6, 2), (3, 4), (2, 2, 3), (4, 1, 3)]
    assert len({Image("x", row.reshape(shape)).sha256 for shape in shapes}) == len(shapes)


def test_the_hash_does_not_depend_on_memory_order():
    pixels = picture(6, 8)
    assert Image("x", np.asfortranarray(pixels)).sha256 == Image("y", pixels).sha256


# -- geometry --------------------------------------------------------------------------------------------------------

SIZES = [(37, 53), (53, 37), (100, 101), (64, 64), (33, 97), (225, 31), (31, 31)]


def with_torchvision(pixels: np.ndarray, resize, crop, interp, squash) -> np.ndarray:
    from torchvision import transforms as T
    from torchvision.transforms.functional import InterpolationMode

    steps = []
    if resize is not None:
        steps.append(T.Resize((resize, resize) if squash else resize, InterpolationMode(interp)))
    if crop is not None:
        steps.append(T.CenterCrop(crop))
    return T.Compose([*steps, T.ToTensor()])(PIL.fromarray(pixels)).numpy()


@pytest.mark.parametrize("interp", images.INTERPOLATION)
@pytest.mark.parametrize("squash", [False, True])
def test_pixels_equal_torchvisions(interp, squash):
    compared = 0
    for height, width in SIZES:
        pixels = picture(height, width)
        for resize in (None, 31, 32, 48, 77):
            for crop in (None, 8, 21, 31):
                steps = Preprocess(resize, crop, interp, squash)
                found = steps.apply(Image("x", pixels))
                expected = with_torchvision(pixels, resize, crop, interp, squash)
                np.testing.assert_array_equal(found, expected, err_msg=f"{height}x{width} {steps}")
                compared += 1
    assert compared == len(SIZES) * 20


def test_every_offset_equals_torchvisions():
    from torchvision.transforms.functional import center_crop
    from torchvision.transforms.transforms import Resize

    for height in range(16, 64):
        for width in (16, 17, 30, 47, 61):
            for resize, crop in ((16, 16), (17, 16), (19, 13), (24, 5)):
                (h, w), (top, left, bottom, right) = Preprocess(resize, crop).geometry((height, width))
                resized = Resize(resize)(PIL.new("L", (width, height)))
                assert resized.size == (w, h)
                ramp = PIL.fromarray(np.arange(w, dtype=np.uint8)[None].repeat(h, 0))
                assert np.asarray(center_crop(ramp, crop))[0].tolist() == list(range(left, right))
                ramp = PIL.fromarray(np.arange(h, dtype=np.uint8)[:, None].repeat(w, 1))
                assert np.asarray(center_crop(ramp, crop))[:, 0].tolist() == list(range(top, bottom))


def test_apply_gives_contiguous_float32_between_0_and_1():
    found = Preprocess(20, 16).apply(Image("x", picture(40, 30)))
    assert found.dtype == np.float32
    assert found.shape == (3, 16, 16)
    assert found.flags.c_contiguous
    white = Preprocess().apply(Image("x", np.full((2, 2, 3), 255, np.uint8)))
    black = Preprocess().apply(Image("x", np.zeros((2, 2, 3), np.uint8)))
    assert (white == 1).all()
    assert (black == 0).all()


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(InputError, match=r"x: 30 x 20 pixels are fewer than the crop of 24; add resize="):
        Preprocess(None, 24).apply(Image("x", picture(20, 30)))


def test_a_strip_that_resizing_would_blow_up_is_refused():
    strip = Image("strip", np.zeros((1, 1000, 3), np.uint8))  # 256 x 256,000 pixels once resized
    with pytest.raises(InputError, match="strip: "):
        Preprocess(256, 224).apply(strip)


def test_one_channel_preprocessing_turns_colour_to_luma():
    pixels = picture(9, 9)
    found = Preprocess(mean=(0.1,), std=(0.3,)).apply(Image("x", pixels))
    assert found.shape == (1, 9, 9)
    expected = np.asarray(PIL.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal((found[0] * 255).round(), expected)
    assert len(np.unique(expected)) > 10


def test_one_channel_preprocessing_keeps_grey():
    grey = picture(9, 9)[..., 0]
    found = Preprocess(mean=(0.1,), std=(0.3,)).apply(Image("x", grey))
    np.testing.assert_array_equal((found[0] * 255).round(), grey)


def test_three_channel_preprocessing_repeats_grey():
    grey = picture(9, 9)[..., 0]
    found = Preprocess().apply(Image("x", grey))
    assert found.shape == (3, 9, 9)
    for channel in found:
        np.testing.assert_array_equal((channel * 255).round(), grey)


def test_zoom_is_the_resize_factor_of_each_axis():
    """Rounding of the long side included; a crop changes nothing."""
    assert Preprocess().zoom((30, 40)) == (1, 1)
    assert Preprocess(crop=8).zoom((30, 40)) == (1, 1)
    assert Preprocess(15, 8).zoom((30, 60)) == (0.5, 0.5)
    assert Preprocess(15).zoom((30, 41)) == (0.5, 20 / 41)
    assert Preprocess(90, 90, squash=True).zoom((30, 45)) == (3, 2)


# -- settings --------------------------------------------------------------------------------------------------------


def test_settings_replace_what_they_name():
    base = Preprocess(256, 224, "bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert base.updated("resize=232") == Preprocess(232, 224, "bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert base.updated("crop=none, resize=none").geometry((30, 40)) == ((30, 40), (0, 0, 30, 40))
    assert base.updated("interp=lanczos,squash=true").squash is True
    assert base.updated("squash=false") == base
    assert base.updated("squash=1").squash is True
    assert base.updated("mean=0.1,0.2,0.3").mean == (0.1, 0.2, 0.3)
    assert base.updated("mean=0.1,0.2,0.3,std=1,2,3,crop=96").std == (1, 2, 3)
    grey = base.updated("mean=0.13,std=0.3,resize=none,crop=none")
    assert (grey.mean, grey.std, grey.channels) == ((0.13,), (0.3,), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=3", "preprocess has no setting 'size'; it has: resize, crop, interp, squash, mean, std, clamp"),
        ("256", "preprocess has no setting ''; it has: resize, crop, interp, squash, mean, std, clamp"),
        ("resize=big", "preprocess: cannot read resize=big"),
        ("resize=", "preprocess: cannot read resize="),
        ("resize=2.5", "preprocess: cannot read resize=2.5"),
        ("resize=256,224", "preprocess: cannot read resize=256,224"),
        ("resize=0", "preprocess: resize must be from 1 to 7000; got 0"),
        ("crop=-1", "preprocess: crop must be from 1 to 7000; got -1"),
        ("interp=magic", "preprocess: interp must be one of nearest, bilinear, bicubic, lanczos; got 'magic'"),
        ("squash=maybe", "preprocess: cannot read squash=maybe"),
        ("mean=a,b,c", "preprocess: cannot read mean=a,b,c"),
        ("mean=0.5", "preprocess: mean has 1 channels; give std too"),
        ("std=0.5,0.5", "preprocess: std has 2 channels; give mean too"),
        (
            "mean=0.5,0.5,std=1,1",
            "preprocess: mean and std need one number a channel (1 or 3); got 2 and 2",
        ),
        ("mean=0.5,std=1,1,1", "preprocess: mean and std need one number a channel (1 or 3); got 1 and 3"),
        ("std=0.5,0,0.5", "preprocess: std must be above 0; got 0"),
    ],
)
def test_bad_settings_are_named(text, message):
    with pytest.raises(AttrsensError) as caught:
        Preprocess().updated(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["mean=nan,0,0", "mean=0,inf,0", "std=nan,1,1", "std=1,1,inf", "std=1,-2,1"])
def test_settings_that_would_make_every_pixel_meaningless_are_refused(text):
    with pytest.raises(AttrsensError, match="preprocess: "):
        Preprocess().updated(text)
