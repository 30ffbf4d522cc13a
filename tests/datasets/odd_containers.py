"""Odd containers of images, made anew from a seed, and what a reader should make of each.

Each case is a function that writes a container below a folder and returns its path. `reads` states
the images (and labels, names, ignored files) that must come out; `refuses` a pattern of the reason.
"""

import io
import json
import os
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIDE = 8


class Case(NamedTuple):
    """A container and what is right for it.

    Args:
        name: Name of the case.
        build: Writes it below a folder.
        images: Grey level of each image in order, where it reads; None if it must be refused.
        reason: Pattern of the refusal.
        labels: Labels that must come out; None: not looked at; (): there are none.
        names: Names of the classes.
        ignored: Files that are no images; None: not looked at.
        decided: Whether labels alone refuse it (a score without classes may read it).
    """

    name: str
    build: Callable[[Path], Path]
    images: list[int] | None
    reason: str = ""
    labels: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None
    ignored: int | None = None
    decided: bool = False


CASES: list[Case] = []


def reads(images: list[int], **right: Any) -> Callable[[Callable[[Path], Path]], Any]:
    """Registers a case that must be read as images of these levels."""

    def add(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(Case(build.__name__, build, images, **right))
        return build

    return add


def refuses(reason: str, *, decided: bool = False) -> Callable[[Callable[[Path], Path]], Any]:
    """Registers a case that must be refused for this reason."""

    def add(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(Case(build.__name__, build, None, reason, decided=decided))
        return build

    return add


def level(value: int, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An image of one grey level, but for a last pixel that tells its orientation."""
    image = Image.new("L", size, value)
    image.putpixel((size[0] - 1, size[1] - 1), 255 - value)
    return image.convert(mode)


def coded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def put(path: Path, data: bytes | int) -> Path:
    """Writes a file, or a PNG of one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(coded(level(data)) if isinstance(data, int) else data)
    return path


def plain(root: Path, count: int = 4, first: int = 0) -> Path:
    """Images 000.png, 001.png, ... of levels 10, 20, ..."""
    for i in range(first, first + count):
        put(root / f"{i:03}.png", 10 * (i + 1))
    return root


def zipped(root: Path, members: dict[str, bytes | int], **how: Any) -> Path:
    """A zip with these members."""
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "x.zip", "w", **how) as archive:
        for name, data in members.items():
            archive.writestr(name, coded(level(data)) if isinstance(data, int) else data)
    return root / "x.zip"


def pixels(count: int = 4, channels: int = 3) -> np.ndarray:
    """The pixels of `plain`, (N, H, W, C)."""
    images = [np.asarray(level(10 * (i + 1), "L")) for i in range(count)]
    return np.repeat(np.stack(images)[..., None], channels, axis=-1)


def npz(root: Path, **arrays: Any) -> Path:
    """An .npz with these arrays."""
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "x.npz", **arrays)
    return root / "x.npz"


def npy(root: Path, array: np.ndarray) -> Path:
    """An .npy of this array."""
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "x.npy", array)
    return root / "x.npy"


def one(root: Path, data: bytes, suffix: str = ".png", name: str = "odd") -> Path:
    """A folder of four plain images and this one."""
    put(plain(root) / f"{name}{suffix}", data)
    return root


FOUR = [10, 20, 30, 40]

# What a walk reaches.


@reads(FOUR, labels=(), ignored=0)
def folder(root: Path) -> Path:
    return plain(root)


@reads([30, 10, 20], labels=(0, 1, 2))
def order_of_a_folder(root: Path) -> Path:
    for value, name in ((10, "a-b"), (20, "b"), (30, "a")):
        put(root / name / "x.png", value)
    return root


@reads([30, 10, 20], labels=(0, 1, 2))
def order_of_a_zip(root: Path) -> Path:
    return zipped(root, {"a-b/x.png": 10, "b/x.png": 20, "a/x.png": 30})


@reads(FOUR, ignored=2)
def notebook_checkpoints(root: Path) -> Path:
    plain(root / ".ipynb_checkpoints", 2)
    return plain(root)


@reads(FOUR, labels=(0, 0, 1, 1), names=("a", "b"), ignored=2)
def notebook_checkpoints_beside_classes(root: Path) -> Path:
    plain(root / "a", 2)
    plain(root / "b", 2, 2)
    plain(root / ".ipynb_checkpoints", 2)
    return root


@reads(FOUR, ignored=1)
def hidden_file(root: Path) -> Path:
    return one(root, coded(level(0)), name=".odd")


@reads(FOUR, ignored=1)
def resource_fork(root: Path) -> Path:
    return one(root, b"\0\5\x16\7", name="._000")


@reads([10, 20], ignored=1)
def mac_zip(root: Path) -> Path:
    return zipped(root, {"a.png": 10, "b.png": 20, "__MACOSX/._a.png": b"\0\5\x16\7"})


@reads(FOUR, ignored=1)
def synology_thumbnails(root: Path) -> Path:
    put(root / "@eaDir" / "000.png" / "SYNO.png", 99)
    return plain(root)


@reads(FOUR, ignored=3)
def trash(root: Path) -> Path:
    plain(root / ".trash" / "deep", 3)
    return plain(root)


@reads(FOUR, labels=(0, 0, 1, 1), names=("bird", "cat"))
def linked_class(root: Path) -> Path:
    plain(root / "set" / "bird", 2)
    (root / "set" / "cat").symlink_to(plain(root / "pool", 2, 2))
    return root / "set"


@reads([10, 20], labels=(0, 1))
def linked_classes_only(root: Path) -> Path:
    (root / "set").mkdir(parents=True)
    for i, name in enumerate(("cat", "dog")):
        (root / "set" / name).symlink_to(plain(root / f"pool{i}", 1, i))
    return root / "set"


@reads(FOUR)
def linked_files(root: Path) -> Path:
    (root / "set").mkdir(parents=True)
    for file in sorted(plain(root / "pool").iterdir()):
        (root / "set" / file.name).symlink_to(file)
    return root / "set"


@refuses("dead link")
def dead_link(root: Path) -> Path:
    (plain(root) / "zz.png").symlink_to(root / "nowhere")
    return root


@refuses("dead link")
def dead_class_link(root: Path) -> Path:
    (plain(root) / "cat").symlink_to(root / "nowhere")
    return root


@refuses("again: images would count twice")
def link_loop(root: Path) -> Path:
    (plain(root) / "loop").symlink_to(root)
    return root


@refuses("again: images would count twice")
def folder_reached_twice(root: Path) -> Path:
    (root / "b").mkdir(parents=True)
    (root / "b" / "c").symlink_to(plain(root / "a"))
    return root


@refuses("too many levels of symbolic links|Too many")
def link_to_itself(root: Path) -> Path:
    (plain(root) / "x.png").symlink_to("x.png")
    return root


@refuses("a folder, not an image")
def folder_named_png(root: Path) -> Path:
    (plain(root) / "zz.png").mkdir()
    return root


@refuses("a pipe")
def pipe_named_png(root: Path) -> Path:
    os.mkfifo(plain(root) / "zz.png")
    return root


@refuses("a device")
def endless_device(root: Path) -> Path:
    (plain(root) / "zz.png").symlink_to("/dev/zero")
    return root


@refuses("a socket")
def socket_named_png(root: Path) -> Path:
    plain(root)
    here = os.getcwd()
    os.chdir(root)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("zz.png")
    finally:
        os.chdir(here)
    return root


@refuses("which are containers")
def folder_of_shards(root: Path) -> Path:
    npz(root, arr_0=pixels())
    return root


@refuses("is one image")
def single_image(root: Path) -> Path:
    return put(root / "x.png", 10)


@refuses("regular file|known container")
def pipe_named_zip(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    os.mkfifo(root / "x.zip")
    return root / "x.zip"


@refuses("known container")
def text_file(root: Path) -> Path:
    return put(root / "x.txt", b"words")


@refuses("holds no images")
def empty_folder(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return root


# Zips.


@reads([10, 20])
def zip_of_stored_members(root: Path) -> Path:
    return zipped(root, {"a.png": 10, "b.png": 20})


def _patched(path: Path, *, method: int | None = None, flag: int = 0, size: int = 0) -> Path:
    """The zip with method, flags or unpacked size of its last member changed in both headers."""
    data = bytearray(path.read_bytes())
    local, central = data.rindex(b"PK\3\4"), data.rindex(b"PK\1\2")
    for at, offset in ((local, 6), (central, 8)):
        data[at + offset] |= flag
        if method is not None:
            data[at + offset + 2 : at + offset + 4] = struct.pack("<H", method)
        if size:
            data[at + offset + 16 : at + offset + 20] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def _two(root: Path) -> Path:
    return zipped(root, {"a.png": 10, "b.png": 20}, compression=zipfile.ZIP_DEFLATED)


@refuses("encrypted")
def encrypted_zip(root: Path) -> Path:
    return _patched(_two(root), flag=1)


@refuses("deflate64")
def deflate64_zip(root: Path) -> Path:
    return _patched(_two(root), method=9)


@refuses("encrypted")
def aes_zip(root: Path) -> Path:
    return _patched(_two(root), method=99, flag=1)


@refuses("Zstandard")
def zstandard_zip(root: Path) -> Path:
    return _patched(_two(root), method=93)


@refuses("more than an image of")
def huge_member(root: Path) -> Path:
    return _patched(_two(root), size=1_500_000_000)


@refuses("two members have this name")
def member_twice(root: Path) -> Path:
    path = _two(root)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.png", coded(level(30)))
    return path


@refuses("a link, whose target is outside")
def link_in_a_zip(root: Path) -> Path:
    path = _two(root)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "../elsewhere")
    return path


@refuses("is a damaged zip")
def cut_zip(root: Path) -> Path:
    path = _two(root)
    path.write_bytes(path.read_bytes()[:-30])
    return path


@refuses("is a damaged zip")
def text_named_zip(root: Path) -> Path:
    return put(root / "x.zip", b"<html>not found</html>")


@refuses("CRC|not an intact image|corrupt")
def member_with_wrong_bytes(root: Path) -> Path:
    path = zipped(root, {"a.png": 10, "b.png": 20})
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255
    path.write_bytes(data)
    return path


@reads([10, 20], labels=(0, 1), names=("cat", "dog"))
def windows_zip(root: Path) -> Path:
    return zipped(root, {"cat\\a.png": 10, "dog\\b.png": 20})


@reads([10, 20], labels=(3, 7))
def zip_of_a_whole_folder(root: Path) -> Path:
    rows = json.dumps({"labels": [["0/a.png", 3], ["0/b.png", 7]]}).encode()
    return zipped(root, {"set/0/a.png": 10, "set/0/b.png": 20, "set/dataset.json": rows})


# Modes, depths, frames, turns.


@refuses("I;16|I, not 8-bit|16")
def grey16(root: Path) -> Path:
    values = np.full((SIDE, SIDE), 33_000, np.uint16)
    return one(root, coded(Image.fromarray(values)))


def _png16(kind: int, samples: int) -> bytes:
    """A 16-bit PNG, which Pillow can't write: kind 2 is RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + b"\x01\xf0" * samples * SIDE for _ in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


@refuses("8 bits|16")
def rgb16(root: Path) -> Path:
    return one(root, _png16(2, 3))


@refuses("8 bits|16|transparent")
def rgba16(root: Path) -> Path:
    return one(root, _png16(6, 4))


@refuses("8 bits|16")
def deep_ppm(root: Path) -> Path:
    return one(root, b"P6\n8 8\n1023\n" + bytes([1, 200]) * 3 * 64, ".ppm")


@refuses("F, not 8-bit")
def float_tiff(root: Path) -> Path:
    return one(root, coded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), ".tif")


@refuses("I, not 8-bit")
def int_tiff(root: Path) -> Path:
    return one(root, coded(Image.fromarray(np.full((8, 8), 99, np.int32)), "TIFF"), ".tiff")


@refuses("CMYK")
def cmyk(root: Path) -> Path:
    return one(root, coded(level(50, "CMYK"), "JPEG"), ".jpg")


@refuses("LAB")
def lab(root: Path) -> Path:
    return one(root, coded(Image.new("LAB", (8, 8)), "TIFF"), ".tif")


def _frames(form: str) -> bytes:
    return coded(level(50), form, save_all=True, append_images=[level(90), level(120)])


@refuses("more than one frame")
def animated_gif(root: Path) -> Path:
    return one(root, _frames("GIF"), ".gif")


@refuses("more than one frame")
def animated_webp(root: Path) -> Path:
    return one(root, _frames("WEBP"), ".webp")


@refuses("more than one frame")
def animated_png(root: Path) -> Path:
    return one(root, _frames("PNG"))


@refuses("more than one frame")
def pages_of_tiff(root: Path) -> Path:
    return one(root, _frames("TIFF"), ".tif")


@refuses("EXIF orientation 6")
def turned_jpeg(root: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return one(root, coded(level(50), "JPEG", exif=exif), ".jpg")


@refuses("EXIF orientation 3")
def turned_png(root: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 3
    return one(root, coded(level(50), "PNG", exif=exif))


@refuses("EXIF orientation 8")
def turned_tiff(root: Path) -> Path:
    return one(root, coded(level(50), "TIFF", tiffinfo={274: 8}), ".tif")


@reads([10, 20, 30, 40, 50])
def upright_exif(root: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 1
    return one(root, coded(level(50), "PNG", exif=exif))


@refuses("transparent")
def transparent(root: Path) -> Path:
    image = level(50, "RGBA")
    image.putpixel((1, 1), (0, 0, 0, 9))
    return one(root, coded(image))


@refuses("transparent")
def transparent_palette(root: Path) -> Path:
    return one(root, coded(level(0).quantize(4), transparency=0))


@reads([10, 20, 30, 40, 50])
def opaque_alpha(root: Path) -> Path:
    return one(root, coded(level(50, "RGBA")))


@reads([10, 20, 30, 40, 50])
def palette(root: Path) -> Path:
    return one(root, coded(level(50).quantize(4)))


@reads([0, 255], labels=())
def bilevel(root: Path) -> Path:
    put(root / "a.png", coded(level(0, "1")))
    put(root / "b.png", coded(level(255, "1")))
    return root


@reads([10, 20])
def grey_folder(root: Path) -> Path:
    put(root / "a.png", coded(level(10, "L")))
    put(root / "b.pgm", coded(level(20, "L"), "PPM"))
    return root


@reads([10, 20, 30, 40, 50])
def jfif(root: Path) -> Path:
    return one(root, coded(level(50)), ".jfif")  # The suffix is an image's, the format the bytes'.


@refuses("page of text|not an intact image")
def page_named_png(root: Path) -> Path:
    return one(root, b"<!DOCTYPE html><html>404</html>")


@refuses("Git LFS|not an intact image")
def pointer_named_png(root: Path) -> Path:
    return one(root, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


@refuses("empty|not an intact image")
def empty_file(root: Path) -> Path:
    return one(root, b"")


@refuses("odd.png")
def postscript_named_png(root: Path) -> Path:
    return one(root, coded(level(50), "EPS"))


@refuses("odd.png")
def cut_png(root: Path) -> Path:
    return one(root, coded(level(50))[:50])


@refuses("odd.jpg")
def cut_jpeg(root: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return one(root, coded(Image.fromarray(noise), "JPEG")[:-40], ".jpg")


@refuses("bomb|pixels")
def bomb(root: Path) -> Path:
    return one(root, coded(Image.new("1", (14_000, 14_000))))


# Most images decide.


@refuses("000.png")
def first_is_small(root: Path) -> Path:
    put(root / "000.png", coded(level(10, size=(6, 6))))
    return plain(root, 5, 1)


@refuses("000.png")
def first_is_grey(root: Path) -> Path:
    put(root / "000.png", coded(level(10, "L")))
    return plain(root, 5, 1)


@refuses("as many images are")
def half_and_half(root: Path) -> Path:
    for i in range(3):
        put(root / f"z{i}.png", coded(level(10, size=(6, 6))))
    return plain(root, 3)


# Arrays.


@reads(FOUR)
def channels_last(root: Path) -> Path:
    return npz(root, arr_0=pixels())


@reads(FOUR)
def channels_first(root: Path) -> Path:
    return npy(root, pixels().transpose(0, 3, 1, 2))


@reads(FOUR)
def fortran_order(root: Path) -> Path:
    return npy(root, np.asfortranarray(pixels()))


@reads(FOUR)
def fortran_order_zipped(root: Path) -> Path:
    return npz(root, samples=np.asfortranarray(pixels()))


@refuses("4 channels")
def four_channels(root: Path) -> Path:
    return npy(root, pixels(5, 4))


@refuses("2 channels")
def two_channels(root: Path) -> Path:
    return npz(root, arr_0=pixels(5, 2).transpose(0, 3, 1, 2))


@refuses("channels")
def images_last(root: Path) -> Path:
    return npy(root, pixels(30, 1).transpose(1, 2, 3, 0))


@refuses("axis 1 or axis 3")
def axes_of_two_readings(root: Path) -> Path:
    return npy(root, np.zeros((4, 3, 8, 3), np.uint8))


@refuses("holds no images")
def no_images(root: Path) -> Path:
    return npy(root, np.zeros((0, 8, 8, 3), np.uint8))


@refuses("holds no images")
def no_height(root: Path) -> Path:
    return npy(root, np.zeros((4, 0, 8, 3), np.uint8))


@refuses("no uint8 images of 4 axes")
def scalar(root: Path) -> Path:
    return npy(root, np.array(3, np.uint8))


@refuses("no uint8 images of 4 axes")
def three_axes(root: Path) -> Path:
    return npy(root, pixels()[..., 0])


@refuses("float")
def floats(root: Path) -> Path:
    return npz(root, arr_0=pixels() / 255)


@refuses("int64")
def wide_integers(root: Path) -> Path:
    return npz(root, arr_0=pixels().astype(np.int64))


@refuses("is a damaged|ends at image")
def cut_npy(root: Path) -> Path:
    path = npy(root, pixels())
    path.write_bytes(path.read_bytes()[:-100])
    return path


@refuses("is a damaged")
def cut_npz(root: Path) -> Path:
    path = npz(root, arr_0=pixels())
    path.write_bytes(path.read_bytes()[:500])
    return path


def _headed(root: Path, shape: str) -> Path:
    path = npy(root, pixels())
    data = path.read_bytes()
    old = b"'shape': (4, 8, 8, 3), }"
    new = f"'shape': {shape}, }}".encode()
    start = data.index(old)
    padded = new + data[start + len(old) :]
    surplus = len(new) - len(old)
    at = padded.index(b"\n")
    path.write_bytes(data[:start] + padded[: at - surplus] + padded[at:])
    return path


@refuses("is a damaged")
def header_of_terabytes(root: Path) -> Path:
    return _headed(root, "(4294967296, 8, 8, 3)")


@refuses("is a damaged|shape")
def header_with_true(root: Path) -> Path:
    return _headed(root, "(True, 8, 8, 3)")


@refuses("is a damaged|shape")
def header_below_zero(root: Path) -> Path:
    return _headed(root, "(-4, 8, 8, 3)")


@refuses("pickled")
def pickled_dictionary(root: Path) -> Path:
    return npy(root, np.array({"mu": np.zeros(4)}, dtype=object))


@refuses("statistics of images|data|no array of images|holds no")
def downsampled_imagenet(root: Path) -> Path:
    return npz(root, data=pixels().reshape(4, -1), labels=np.arange(1, 5))


@refuses("statistics")
def statistics(root: Path) -> Path:
    return npz(root, mu=np.zeros(4), sigma=np.eye(4))


@refuses("both")
def two_arrays_of_images(root: Path) -> Path:
    return npz(root, images=pixels(), samples=pixels()[::-1])


# Labels.


@reads(FOUR, labels=(0, 1, 2, 3))
def label_array(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.arange(4))


@reads(FOUR, labels=(0, 1, 2, 3))
def label_column(root: Path) -> Path:
    return npz(root, images=pixels(), labels=np.arange(4, dtype=np.uint8)[:, None])


@reads(FOUR, labels=(2, 0, 1, 3))
def one_hot_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.eye(4, dtype=np.float32)[[2, 0, 1, 3]])


@reads(FOUR, labels=(0, 1, 2, 3))
def whole_float_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.arange(4.0))


@refuses("not a class for each image", decided=True)
def soft_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.full((4, 5), 0.2))


@refuses("not a class for each image", decided=True)
def fractional_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.arange(4) + 0.5)


@refuses("not a class for each image", decided=True)
def text_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.array(["cat", "dog", "cat", "dog"]))


@refuses("not a class for each image", decided=True)
def infinite_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.array([0, 1, 2, np.nan]))


@refuses("run from -1 to 2", decided=True)
def labels_below_zero(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.arange(4) - 1)


@refuses("run from 1 to 1000", decided=True)
def labels_from_one(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.array([1, 500, 7, 1000]))


@refuses("labels for 4 images", decided=True)
def too_few_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.arange(3))


@refuses("not a class for each image", decided=True)
def labels_beyond_bounds(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.array([0, 1, 2, 2**63], np.uint64))


@refuses("pickled", decided=True)
def pickled_labels(root: Path) -> Path:
    return npz(root, arr_0=pixels(), arr_1=np.array([0, 1, None, 2], object))


@reads(list(range(12)), labels=(0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9))
def numbered_classes(root: Path) -> Path:
    for place, name in enumerate(sorted(str(n) for n in range(12))):
        put(root / name / "x.png", place)
    return root


@reads([10, 20, 30], labels=(2, 7, 10))
def padded_numbers(root: Path) -> Path:
    for value, name in ((10, "002"), (20, "007"), (30, "010")):
        put(root / name / "x.png", value)
    return root


@reads([10, 20, 30], labels=(10, 2, 9))
def numbers_with_a_word(root: Path) -> Path:
    for value, name in ((10, "class 10"), (20, "class 2"), (30, "class 9")):
        put(root / name / "x.png", value)
    return root


@refuses("are both class 1", decided=True)
def one_number_twice(root: Path) -> Path:
    put(root / "1" / "x.png", 10)
    put(root / "01" / "x.png", 20)
    return root


@reads([10, 20, 30], labels=(0, 1, 2), names=("1", "10", "cat"))
def numbers_and_a_name(root: Path) -> Path:
    for value, name in ((10, "1"), (20, "10"), (30, "cat")):
        put(root / name / "x.png", value)
    return root


@reads([10, 20, 30], labels=(0, 1, 0), names=("cat", "dog"))
def classes_in_two_parts(root: Path) -> Path:
    for value, name in ((10, "a/cat"), (20, "a/dog"), (30, "b/cat")):
        put(root / name / "x.png", value)
    return root


@refuses("holds the splits test and train")
def two_splits(root: Path) -> Path:
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        plain(root / name, 1)
    return root


@refuses("holds the splits train and validation")
def two_splits_in_a_zip(root: Path) -> Path:
    return zipped(root, {"set/train/a.png": 10, "set/val/a.png": 20})


@reads([10, 20, 30], labels=(0, 1, 2), names=("bus", "car", "train"))
def class_named_train(root: Path) -> Path:
    for value, name in ((10, "bus"), (20, "car"), (30, "train")):
        put(root / name / "x.png", value)
    return root


@reads([10, 20], labels=())
def chunks_of_a_thousand(root: Path) -> Path:
    put(root / "00000" / "img00000999.png", 10)
    put(root / "00001" / "img00001000.png", 20)
    return root


def _listed(root: Path, rows: Any) -> Path:
    plain(root, 2)
    put(root / "dataset.json", rows if isinstance(rows, bytes) else json.dumps(rows).encode())
    return root


@reads([10, 20], labels=(6, 2))
def json_in_a_folder(root: Path) -> Path:
    return _listed(root, {"labels": [["001.png", 2], ["000.png", 6]]})


@reads([10, 20], labels=())
def json_without_labels(root: Path) -> Path:
    return _listed(root, {"labels": None})


@refuses("no label for", decided=True)
def json_lacks_an_image(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", 1]]})


@refuses("is not there", decided=True)
def json_lists_a_missing_image(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", 1], ["001.png", 1], ["002.png", 0]]})


@refuses("lists an image twice", decided=True)
def json_lists_an_image_twice(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", 1], ["001.png", 1], ["000.png", 0]]})


@refuses("can't be read as labels", decided=True)
def json_with_true(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", True], ["001.png", False]]})


@refuses("can't be read as labels", decided=True)
def json_with_fractions(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", 1.7], ["001.png", 1e30]]})


@refuses("can't be read as labels", decided=True)
def json_with_vectors(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", [0.0, 1.0]], ["001.png", [1.0, 0.0]]]})


@refuses("can't be read as labels", decided=True)
def json_too_deep(root: Path) -> Path:
    return _listed(root, b'{"labels": ' + b"[" * 100_000)


@refuses("run from -1", decided=True)
def json_below_zero(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", -1], ["001.png", 0]]})


@refuses("not a class|bounds|labels", decided=True)
def json_beyond_bounds(root: Path) -> Path:
    return _listed(root, {"labels": [["000.png", 10**30], ["001.png", 0]]})


@reads(FOUR, labels=())
def images_beside_class_folders(root: Path) -> Path:
    plain(root / "more", 1, 3)
    return plain(root, 3)


# Parquet.


def rows(path: Path, cells: list[Any], labels: list[Any] | None = None, **meta: Any) -> Path:
    """A parquet file as the hub keeps one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {"image": pa.array(cells, kind)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    table = pa.table(columns)
    if meta:
        features = {"label": {"names": meta["names"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path)
    return path


def cells(*values: int) -> list[Any]:
    """Cells of images of these levels."""
    return [{"bytes": coded(level(v)), "path": None} for v in values]


@reads([10, 20], labels=(1, 0), names=("cat", "dog"))
def parquet_with_names(root: Path) -> Path:
    return rows(root / "x.parquet", cells(10, 20), [1, 0], names=["cat", "dog"])


@reads([10, 20], labels=())
def parquet_without_labels(root: Path) -> Path:
    return rows(root / "x.parquet", cells(10, 20), [-1, -1])


@refuses("only the path")
def parquet_of_paths(root: Path) -> Path:
    return rows(root / "x.parquet", [{"bytes": None, "path": "/data/0.png"}])


@refuses("no image in this row")
def parquet_with_an_empty_row(root: Path) -> Path:
    return rows(root / "x.parquet", [*cells(10), None])


@refuses("not a class", decided=True)
def parquet_lacks_a_label(root: Path) -> Path:
    return rows(root / "x.parquet", cells(10, 20), [1, None])


@refuses("holds the splits test and train")
def parquet_of_two_splits(root: Path) -> Path:
    rows(root / "plain_text" / "train-00000-of-00001.parquet", cells(10, 20))
    rows(root / "plain_text" / "test-00000-of-00001.parquet", cells(30))
    return root


@refuses("is a damaged parquet")
def cut_parquet(root: Path) -> Path:
    path = rows(root / "x.parquet", cells(10, 20))
    path.write_bytes(path.read_bytes()[:-20])
    return path


@refuses("image files and parquet files")
def parquet_beside_images(root: Path) -> Path:
    rows(root / "x.parquet", cells(10, 20))
    return plain(root)
