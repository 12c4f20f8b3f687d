"""Folders of pictures: which files are samples, their classes, splits, size and pixels, and the notes about them."""

import io
import json
import os
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from formats import refused
from PIL import Image, ImageOps

from infojax.data import in_memory, open_dataset
from infojax.data.images import decode, header, scale_of


def write(root, *names, size=(8, 8), level=0):
    """PNG files of one level of grey; size is (width, height)."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (level,) * 3).save(root / name, "PNG")
    return root


def four(root):
    return write(root, *(f"{split}/{name}/a.png" for split in ("train", "test") for name in ("cat", "dog")))


def counts(dataset, split="train"):
    return np.bincount(dataset.split(split).labels, minlength=dataset.num_classes).tolist()


def said(dataset, *parts):
    """A note, of one line each, that contains all of these."""
    assert all("\n" not in note and note.isprintable() for note in dataset.notes)
    return any(all(part in note for part in parts) for note in dataset.notes)


# Which files


def test_the_whole_class_folder_is_walked(tmp_path):
    """As torchvision's ImageFolder: pictures of every depth belong to the class folder, in the order of their names."""
    write(
        tmp_path, "train/cat/z.png", "train/cat/b/1.png", "train/cat/a/deep/2.png", "train/dog/c.PNG", "test/dog/x.png"
    )
    dataset = open_dataset("folder", tmp_path)
    train = dataset.split("train")
    names = [str(Path(path).relative_to(tmp_path / "train")) for path in train.paths]
    assert names == ["cat/z.png", "cat/a/deep/2.png", "cat/b/1.png", "dog/c.PNG"]
    assert train.labels.tolist() == [0, 0, 0, 1] and dataset.split("test").labels.tolist() == [1]
    assert said(dataset, "no picture in test of 1 of 2 classes: cat")


@pytest.mark.parametrize(
    "extra",
    [
        ("__MACOSX/train/cat/._a.png", "__MACOSX/train/ant/._a.png"),
        ("train/._ant/a.png", "train/.ant/a.png"),
        ("annotations/xmls/a.xml", "train/annotations/a.xml"),
        ("train/apple/", "test/zebra/deep/"),
        ("train/ant/Thumbs.db", "train/ant/.DS_Store", "train/ant/desktop.ini"),
        ("train/cat/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",),
        ("masks/ant/a.png",),  # pictures, of a class that no split has
    ],
)
def test_only_folders_with_pictures_are_classes(tmp_path, extra):
    four(tmp_path)
    for name in extra:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        elif name == "masks/ant/a.png":
            write(tmp_path, name)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"no picture")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.class_names == ("cat", "dog") and set(dataset.splits) == {"train", "test"}
    assert counts(dataset) == counts(dataset, "test") == [1, 1]
    assert said(dataset, "left out: ")


def test_what_is_left_out_is_counted(tmp_path):
    four(tmp_path)
    for name in ("._a.png", ".hidden", "Thumbs.db", "notes.txt", "more.txt"):
        (tmp_path / "train/cat" / name).write_bytes(b"x")
    (tmp_path / "train/cat/gone.png").symlink_to("nowhere")
    (tmp_path / "train/cat/round.png").symlink_to("round.png")
    (tmp_path / "train/cat/again").symlink_to(tmp_path / "train")
    os.mkfifo(tmp_path / "train/dog/pipe.png")
    write(tmp_path, "train/loose.png", "looser.png")
    (tmp_path / "train/ant").mkdir()
    dataset = open_dataset("folder", tmp_path)
    assert counts(dataset) == [1, 1]
    for part in (
        "hidden: 2 (train/cat/._a.png, train/cat/.hidden)", "not named as pictures: 3 (",
        "not regular files, or links to nothing: 3 (", "links to a folder around them: 1 (train/cat/again)",
        "in no class folder: 2 (looser.png, train/loose.png)", "folders without pictures: 1 (train/ant)",
    ):  # fmt: skip
        assert said(dataset, part), (part, dataset.notes)


def test_links_to_folders_and_files_are_followed(tmp_path):
    write(tmp_path / "elsewhere", "a.png", "b.png")
    write(tmp_path / "set", "train/dog/a.png")
    (tmp_path / "set/train/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/train/dog/b.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    dataset = open_dataset("folder", tmp_path / "set")
    assert counts(dataset) == [2, 2] and said(dataset, "links lead again to 1 picture: train/dog/b.png")


def test_names_of_any_kind(tmp_path):
    """The same letters in two encodings are one class; what cannot be printed stays out of the lines."""
    long = "x" * 246 + ".PnG"
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    write(tmp_path, f"train/{composed}/{long}", "train/日本/写真.JPG", f"test/{apart}/a.png", "test/日本/a b'.png")
    (tmp_path / "train/日本/line\nbreak\x1b[31m.txt").write_bytes(b"")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.class_names == (composed, "日本") and counts(dataset, "test") == [1, 1]
    assert said(dataset, r"line\nbreak\x1b[31m.txt")
    in_memory(dataset.split("train"))


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_name_that_is_no_text(tmp_path):
    four(tmp_path)
    os.rename(tmp_path / "train/dog/a.png", os.fsencode(tmp_path / "train/dog") + b"/\xff.png")
    (tmp_path / "train/cat" / os.fsdecode(b"\xfe.txt")).write_bytes(b"")
    dataset = open_dataset("folder", tmp_path)
    in_memory(dataset.split("train"))
    "".join(dataset.notes).encode()


def test_a_wrong_kind_of_file(tmp_path):
    four(tmp_path)
    (tmp_path / "train/cat/b.png").write_bytes(b"")
    (tmp_path / "train/dog/c.jpg").write_bytes(b"hello")
    with refused("train/cat/b.png: not a readable picture (the file is empty); 1 more cannot be read: c.jpg"):
        open_dataset("folder", tmp_path)
    for path, reason in (
        (tmp_path, "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/no", "No such file"),
    ):
        with refused(path, reason):
            decode(path)
    os.mkfifo(tmp_path / "pipe.png")
    with refused("not a regular file"):
        header(tmp_path / "pipe.png")


def test_a_decompression_bomb(tmp_path, monkeypatch):
    four(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # from 60 on it is refused, below a warning
    with refused("a.png: not a readable picture (Image size (64 pixels) exceeds limit"):
        open_dataset("folder", tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    in_memory(open_dataset("folder", tmp_path).split("train"))


# Splits


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "testing", "dev"])
def test_another_split_serves_as_test(tmp_path, name):
    write(tmp_path, "train/cat/a.png", "train/dog/a.png", f"{name}/dog/a.png")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.split("test").labels.tolist() == [1] and set(dataset.splits) == {"train", name}
    assert said(dataset, f"split {name} serves as test")


def test_splits_by_option(tmp_path):
    write(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/dog/2.png", "test/cat/3.png", "train/dog/4.png")
    dataset = open_dataset("folder", tmp_path, train_split="a", test_split="b")
    assert counts(dataset) == [1, 1] and counts(dataset, "test") == [0, 1]
    assert said(dataset, "split a serves as train") and said(dataset, "not used: split test, train")
    with refused("folder: test_split is 'c'", "a, b"):
        open_dataset("folder", tmp_path, test_split="c")
    with refused("a cannot serve as train and as test"):
        open_dataset("folder", tmp_path, train_split="a", test_split="a")


def test_test_comes_before_validation(tmp_path):
    write(four(tmp_path), "val/cat/b.png")
    dataset = open_dataset("folder", tmp_path)
    assert counts(dataset, "test") == [1, 1] and said(dataset, "not used: split val")


def test_without_splits_a_fifth_is_held_out(tmp_path):
    names = [f"{name}/{i}.png" for name, n in (("cat", 10), ("dog", 5), ("train", 2), ("ant", 1)) for i in range(n)]
    write(tmp_path, *names)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.class_names == ("ant", "cat", "dog", "train")  # one that is named as a split
    assert counts(dataset) == [1, 8, 4, 1] and counts(dataset, "test") == [0, 2, 1, 1]
    both = [str(path) for split in ("train", "test") for path in dataset.split(split).paths]
    assert sorted(both) == sorted(str(tmp_path / name) for name in names)
    assert said(dataset, "no test split: 4 of 18 pictures, drawn with seed 0 from each class")
    other = open_dataset("folder", tmp_path, seed=1)
    assert other.split("test").paths != dataset.split("test").paths
    assert open_dataset("folder", tmp_path).split("test").paths == dataset.split("test").paths


def test_train_alone(tmp_path):
    write(tmp_path, *(f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))
    dataset = open_dataset("folder", tmp_path)
    assert counts(dataset) == [4, 4]
    with refused("folder has no split 'test'", "test_split", "test_fraction=0.2"):
        dataset.split("test")
    half = open_dataset("folder", tmp_path, test_fraction=0.5)
    assert counts(half) == counts(half, "test") == [2, 2]
    with refused("needs a train split and no test split"):
        open_dataset("folder", four(tmp_path), test_fraction=0.5)


def test_a_folder_around_the_folder(tmp_path):
    four(tmp_path / "imagenette" / "v2")
    with refused("imagenette, which would be the only class", f"give data.dir {tmp_path / 'imagenette'}"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train/1.jpg", "test/2.jpg"), "lie in test, train without class folders"),
        (("train/cat.1.jpg", "test1/2.jpg"), "lie in train without class folders"),
        (("cat/1.jpg", "dog/1.jpg", "val/1.jpg"), "lie in val without class folders"),
        (("train/1.jpg",), "lie in train without class folders"),
        (("1.jpg", "2.jpg"), "(in no class folder: 2 (1.jpg, 2.jpg))"),
    ],
)
def test_splits_are_no_classes(tmp_path, names, says):
    with refused(says):
        open_dataset("folder", write(tmp_path, *names))


def test_pictures_without_labels_beside_labelled_ones(tmp_path):
    write(four(tmp_path), "unlabelled/1.png")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.num_classes == 2 and said(dataset, "in no class folder: 1 (unlabelled/1.png)")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    four(tmp_path)
    scandir = os.scandir

    def refuses(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with refused(tmp_path / "test/dog", "cannot be read (Permission denied)"):
        open_dataset("folder", tmp_path)


# Size


def test_pictures_of_one_size_keep_it(tmp_path):
    dataset = open_dataset("folder", four(tmp_path))
    assert dataset.split("train").shape == (8, 8, 3) and said(dataset, "all pictures are 8 x 8 pixels, and stay so")
    wide = open_dataset("folder", write(tmp_path / "wide", "train/a/a.png", "train/b/a.png", size=(12, 7)))
    assert wide.split("train").shape == (7, 12, 3) and in_memory(wide.split("train")).x.shape == (2, 7, 12, 3)


def test_pictures_of_several_sizes_get_one(tmp_path):
    write(tmp_path, "train/a/a.png", size=(20, 10))
    write(tmp_path, "train/a/b.png", "train/b/c.png", size=(16, 14))
    dataset = open_dataset("folder", tmp_path)
    assert dataset.split("train").shape == (14, 14, 3)
    assert said(dataset, "10 to 14 pixels high and 16 to 20 wide", "the shorter side to 14", "of 3 of them is cut")
    large = open_dataset("folder", write(tmp_path / "large", "train/a/a.png", "train/b/a.png", size=(300, 250)))
    assert large.split("train").shape == (224, 224, 3) and said(
        large, "are 250 pixels high and 300 wide; all are resized", "to 224"
    )
    given = open_dataset("folder", tmp_path, size=5)
    assert given.split("train").shape == (5, 5, 3) and said(given, "all are resized, the shorter side to 5")


def test_a_picture_that_changed_since(tmp_path):
    train = open_dataset("folder", four(tmp_path)).split("train")
    write(tmp_path, "train/cat/a.png", size=(9, 8))
    with refused("train/cat/a.png: is 8 x 9 now"):
        train.read([0, 1])


# Pixels


def stored(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(Image.fromarray(PIXELS), format, exif=exif)
    right = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    np.testing.assert_array_equal(decode(content), right)
    (tmp_path / "a").write_bytes(content)
    assert header(tmp_path / "a").size == right.shape[:2] == ((6, 9) if orientation < 5 else (9, 6))
    assert header(tmp_path / "a").turned == (orientation > 1)


def test_damaged_exif_is_no_concern(tmp_path):
    """Pillow warns of it; the picture is sound."""
    write(tmp_path, "train/a/a.png", "train/b/a.png", size=(9, 6))
    content = stored(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12junk")
    (tmp_path / "train/a/b.jpg").write_bytes(content)
    x, _ = open_dataset("folder", tmp_path).split("train").read([1])
    np.testing.assert_array_equal(x[0], decode(stored(Image.fromarray(PIXELS), "JPEG")))


def test_twelve_bits():
    """A TIFF by hand: one row of two pixels, 0xFFF and 0x800, in three bytes after the table of tags."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 1), (279, 3)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + b"\xff\xf8\x00"
    assert decode(content, channels=1).ravel().tolist() == [255, round(0x800 * 255 / 0xFFF)]


GREY = PIXELS[..., 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("image", "format"),
    [
        (Image.fromarray(GREY), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
        (Image.fromarray(GREY.astype(np.int32)), "TIFF"),
        (Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"),
        (Image.fromarray(GREY.astype(np.int32) * 257), "PPM"),
        (Image.fromarray(GREY / np.float32(255)), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        (Image.fromarray(GREY * np.float32(257)), "TIFF"),
        (Image.fromarray(GREY).convert("LA"), "PNG"),
        (Image.fromarray(GREY).convert("P"), "PNG"),
        (Image.fromarray(GREY).convert("P"), "GIF"),
        (Image.fromarray(GREY).convert("RGBA"), "PNG"),
        (Image.fromarray(GREY).convert("RGB").convert("CMYK"), "TIFF"),
    ],
)
def test_every_mode_gives_the_same_grey(image, format, channels):
    right = np.repeat(GREY[..., None], channels, 2)
    np.testing.assert_array_equal(decode(stored(image, format), channels=channels), right)


def test_black_and_white_transparency_and_animation():
    bits = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(decode(stored(bits, "PNG"), channels=1)[..., 0], np.where(GREY > 127, 255, 0))
    palette = Image.fromarray(PIXELS).quantize(200)
    for transparency in (0, bytes(range(200))):
        content = stored(palette, "PNG", transparency=transparency)
        np.testing.assert_array_equal(decode(content), np.asarray(palette.convert("RGB")))
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    first = np.broadcast_to(np.array([255, 0, 0], np.uint8), (4, 5, 3))
    for format in ("GIF", "TIFF", "PNG"):
        content = stored(frames[0], format, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decode(content), first)


def test_numbers_of_a_set_share_one_scale(tmp_path):
    """A dark picture stays darker than a bright one, whatever each one's own range."""
    for name, level in (("cat", 100), ("dog", 40_000)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), level, np.int32)).save(tmp_path / "train" / name / "a.tif")
    dataset = open_dataset("folder", tmp_path)
    x, _ = dataset.split("train").read([0, 1])
    assert x[:, 0, 0, 0].tolist() == [round(100 / 257), round(40_000 / 257)]
    assert said(dataset, "2 pictures of 32-bit integers from 100 to 40000: 0 to 65535 is taken as black to white")
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "train/cat/b.tif")
    with refused("b.tif", "NaN or infinite"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "fractions", "scale"),
    [
        (0, 1, True, (0, 1)), (0, 1, False, (0, 255)), (0, 1.01, True, (0, 255)), (3, 256, False, (0, 65535)),
        (-1, 1, True, (-1, 1)), (0, 65536, False, (0, 65536)), (-5, -5, False, (-5, -4)),
    ],
)  # fmt: skip
def test_scales(low, high, fractions, scale):
    assert scale_of(low, high, fractions) == scale


def test_conversions_are_said(tmp_path):
    write(tmp_path, "train/a/rgb.png", "train/b/rgb.png")
    image = Image.new("RGB", (8, 8), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 3
    for name, kind, options in (
        ("grey.png", image.convert("L"), {}), ("alpha.png", image.convert("RGBA"), {}),
        ("palette.gif", image.convert("P"), dict(save_all=True, append_images=[Image.new("P", (8, 8), 1)])),
        ("deep.png", Image.fromarray(np.zeros((8, 8), np.uint16)), {}), ("turned.jpg", image, dict(exif=exif)),
        ("cmyk.jpg", image.convert("CMYK"), {}),
    ):  # fmt: skip
        kind.save(tmp_path / "train/a" / name, **options)
    dataset = open_dataset("folder", tmp_path)
    in_memory(dataset.split("train"))
    for part in (
        "1 grey", "1 with an alpha channel, which is dropped", "1 with a palette", "1 in CMYK",
        "1 picture of 16-bit integers from 0 to 0: 0 to 65535", "the first of several pictures is read of 1 file",
        "turned upright, as the EXIF data say: 1 picture",
    ):  # fmt: skip
        assert said(dataset, part), part


# Split files


def listed(root, rows, encoding="utf-8"):
    (root / "split.json").write_bytes(json.dumps(rows).encode(encoding))
    return open_dataset("folder", root, split_file="split.json")


ROWS = {"train": [["train/cat/a.png", 0, "cat"], ["train/dog/a.png", 1, "dog"]]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_split_files_of_other_systems(tmp_path, encoding):
    four(tmp_path)
    rows = {"train": [[path.replace("/", "\\"), *rest] for path, *rest in ROWS["train"]]}
    dataset = listed(tmp_path, rows, encoding)
    assert counts(dataset) == [1, 1] and said(dataset, "paths of split.json written for another system: 2")
    assert not said(listed(tmp_path, ROWS, encoding), "another system")


def test_paths_outside_of_the_folder(tmp_path):
    four(tmp_path / "set")
    write(tmp_path, "other/a.png")
    rows = {"train": [[str(tmp_path / "set/train/cat/a.png"), 0], ["../other/a.png", 1]]}
    dataset = listed(tmp_path / "set", rows)
    assert counts(dataset) == [1, 1] and said(dataset, "split.json lists 1 picture outside the folder: ../other/a.png")


def test_what_a_split_file_repeats(tmp_path):
    four(tmp_path)
    cat, dog = ROWS["train"]
    again = ["./train/cat/a.png", 0, "cat"]
    assert said(listed(tmp_path, {"train": [cat, dog, again]}), "1 picture more than once, in one split: cat/a.png")
    assert said(listed(tmp_path, {"train": [cat, dog], "test": [again]}), "1 picture more than once, in two splits")
    assert said(listed(tmp_path, {"train": [cat, dog, [cat[0], 1]]}), "1 picture more than once, with two labels")
    assert said(listed(tmp_path, {"train": [cat, dog]}), "left out, not listed by the split file: 2 pictures (test/cat")
    assert said(listed(tmp_path, {"train": [cat, [dog[0], 1, "cat"]]}), "gives several labels to 1 class name: cat")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('{"train": [["no.png", 0], ["train/cat/a.png", 1], ["neither.png", 0]]}', "no.png, neither.png, 2 pictures"),
        ('{"train": [["train/cat/a.png", 0, "cat"], ["train/dog/a.png", 0, "dog"]]}', "label 0 is 'cat' and"),
        ('{"train": [["train/cat/a.png", 1], ["train/dog/a.png", 2]]}', "label 0, but one has 2; number the 2 classes"),
        ('{"train": [["train/cat", 0]]}', "no regular file"),
        ('{"train": [["train/cat/a.png", true]]}', "label True"),
        ('{"train": [["train/cat/a.png", 0]], "train": [["train/dog/a.png", 0]]}', "it has 'train' twice"),
        ("[" * 100_000, "is not {split:"),
        ('{"train": [["\\u0000", 0]]}', "does not exist"),
        ('{"train": ["train/cat/a.png"]}', "it has 'train/cat/a.png' for a row"),
        ('{"train": 3}', "is not {split:"),
        ('{"train": [["train/cat/a.png", 0, "cat", 1]]}', "'cat', 1]\" for a row"),
    ],
)
def test_split_files_that_are_refused(tmp_path, rows, says):
    (four(tmp_path) / "split.json").write_text(rows)
    with refused("split.json", says):
        open_dataset("folder", tmp_path, split_file="split.json")


def test_a_split_file_that_is_no_file(tmp_path):
    os.mkfifo(four(tmp_path) / "split.json")
    with refused("found no split file split.json"):
        open_dataset("folder", tmp_path, split_file="split.json")
