"""The eleven sets of CoOp, from its folders and split files: pictures, classes and splits as in its tables.

Folders are arranged as CoOp's DATASETS.md says (https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md): pictures as
published, and for nine of the sets a split file split_zhou_*.json, which Google Drive serves. Nothing is downloaded.
"""

from pathlib import Path
from typing import NamedTuple

from infojax.data.folders import folder, of_rows
from infojax.data.source import DataError, Dataset

DRIVE = "https://drive.google.com/file/d/"


class CoopSet(NamedTuple):
    """One of the sets.

    Attributes:
      folder: its name in CoOp's tree; pictures: where they are in it; split_file: the list of them.
      source: where the pictures are published; drive: id of the split file, or of the class names, on Google Drive.
      sizes: pictures in train, validation and test.
    """

    folder: str
    pictures: str
    split_file: str
    source: str
    drive: str
    sizes: tuple[int, int, int]


OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/"
SETS = {
    "caltech101": CoopSet(
        "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json",
        "https://data.caltech.edu/records/mzrjq-6wc02", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN", (4128, 1649, 2465),
    ),
    "dtd": CoopSet(
        "dtd", "images", "split_zhou_DescribableTextures.json", f"{OXFORD}dtd/download/dtd-r1.0.1.tar.gz",
        "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x", (2820, 1128, 1692),
    ),
    "eurosat": CoopSet(
        "eurosat", "2750", "split_zhou_EuroSAT.json", "https://zenodo.org/records/7711810",
        "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o", (13500, 5400, 8100),
    ),
    "fgvc_aircraft": CoopSet(
        "fgvc_aircraft", "images", "", f"{OXFORD}fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "",
        (3334, 3333, 3333),
    ),
    "food101": CoopSet(
        "food-101", "images", "split_zhou_Food101.json",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
        (50500, 20200, 30300),
    ),
    "imagenet": CoopSet(
        "imagenet", "images", "", "https://image-net.org", "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF",
        (1_281_167, 0, 50_000),
    ),
    "oxford_flowers": CoopSet(
        "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", f"{OXFORD}flowers/102/102flowers.tgz",
        "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT", (4093, 1633, 2463),
    ),
    "oxford_pets": CoopSet(
        "oxford_pets", "images", "split_zhou_OxfordPets.json", f"{OXFORD}pets/data/images.tar.gz",
        "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs", (2944, 736, 3669),
    ),
    "stanford_cars": CoopSet(
        "stanford_cars", "", "split_zhou_StanfordCars.json",
        "the original site is gone; cars_train and cars_test of a copy", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
        (6509, 1635, 8041),
    ),
    "sun397": CoopSet(
        "sun397", "SUN397", "split_zhou_SUN397.json", "https://vision.princeton.edu/projects/2010/SUN/",
        "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", (15880, 3970, 19850),
    ),
    "ucf101": CoopSet(
        "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json",
        f"UCF-101-midframes.zip, {DRIVE}10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
        (7639, 1898, 3783),
    ),
}  # fmt: skip


def open_coop(name: str, dir: str | Path, size: int | None = None) -> Dataset:
    """One of the eleven sets of CoOp, from its folder and split file.

    Args:
      dir: the folder of all sets, or of this one; size: as of `folder`.
    Raises:
      DataError: something is missing; says where it was looked for and what to download.
    """
    facts = SETS[name]
    root = _found(name, facts, Path(dir).expanduser())
    if facts.split_file:
        found = folder(root / facts.pictures, str((root / facts.split_file).absolute()), size)
    elif name == "imagenet":
        found = _imagenet(root, size)
    else:
        found = _aircraft(root, size)
    counts = [len(found.split(split)) if split in found.splits else 0 for split in ("train", "val", "test")]
    counts = [counts[0], 0, len(found.split("test"))] if name == "imagenet" else counts
    other = [] if tuple(counts) == facts.sizes else [
        f"{name}: {', '.join(f'{n:,}' for n in counts)} pictures in train, val and test; CoOp's tables have "
        f"{', '.join(f'{n:,}' for n in facts.sizes)}"
    ]  # fmt: skip
    return found._replace(
        name=name, notes=[*(note.replace("folder: ", f"{name}: ", 1) for note in found.notes), *other]
    )


def _found(name, facts, where):
    """The set's own folder.

    Raises:
      DataError: what is missing in every place.
    """
    wanted = [facts.pictures] * bool(facts.pictures) + [facts.split_file] * bool(facts.split_file)
    wanted += {"imagenet": ["classnames.txt"], "fgvc_aircraft": ["variants.txt"]}.get(name, [])
    places = (where / facts.folder, where)
    best = min(places, key=lambda place: sum(not (place / part).exists() for part in wanted))
    missing = [part for part in wanted if not (best / part).exists()]
    if missing:
        get = f"pictures: {facts.source}" if facts.pictures in missing or not facts.pictures else ""
        listed = {facts.split_file, "classnames.txt"} & set(missing)
        get = "; ".join(filter(None, [get, *(f"{part}: {DRIVE}{facts.drive}" for part in listed)]))
        raise DataError(
            f"{name}: found no {' and no '.join(missing)} in {places[0]} or {places[1]}; to get it: "
            f"{get or facts.source} (CoOp's DATASETS.md shows the folder)"
        )
    return best


def _imagenet(root, size):
    """train and val, whose folders are synsets; names are OpenAI's, of classnames.txt."""
    found = folder(root / "images", size=size)
    lines = (root / "classnames.txt").read_text(encoding="utf-8-sig").splitlines()
    names = dict(line.strip().split(" ", 1) for line in lines if " " in line.strip())
    absent = [synset for synset in found.class_names if synset not in names]
    if absent:
        raise DataError(f"imagenet: {root / 'classnames.txt'} has no line for {absent[0]} ({len(absent):,} in all)")
    return found._replace(class_names=tuple(names[synset] for synset in found.class_names))


def _aircraft(root, size):
    """FGVC-Aircraft's own lists, "1025794 707-320" per line."""
    names = [line.strip() for line in (root / "variants.txt").read_text().splitlines() if line.strip()]
    label, rows = {name: c for c, name in enumerate(names)}, {}
    for split in ("train", "val", "test"):
        path = root / f"images_variant_{split}.txt"
        if not path.is_file():
            raise DataError(f"fgvc_aircraft: found no {path}; it is in {SETS['fgvc_aircraft'].source}")
        lines = [line.strip().split(" ", 1) for line in path.read_text().splitlines() if line.strip()]
        wrong = next((line for line in lines if len(line) != 2 or line[1] not in label), None)
        if wrong is not None:
            raise DataError(f"fgvc_aircraft: {path} has {' '.join(wrong)!r}, which names no variant of variants.txt")
        rows[split] = [(root / "images" / f"{image}.jpg", label[variant]) for image, variant in lines]
        lost = [path.name for path, _ in rows[split] if not path.is_file()]
        if lost:
            raise DataError(f"fgvc_aircraft: {path.name} lists {lost[0]}, which is not there ({len(lost):,} in all)")
    return of_rows(rows, tuple(names), [], size)
