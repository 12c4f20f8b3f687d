"""The eleven sets of CoOp from folders as its DATASETS.md arranges them: paths, names, missing files."""

import json

import numpy as np
import pytest
from PIL import Image

from infojax.data import DataError, open_dataset
from infojax.data.coop import SETS
from infojax.tasks.crossmodal.recipe import TEMPLATES


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 0, 0)).save(path)


def test_there_are_eleven_with_templates():
    assert SETS.keys() == TEMPLATES.keys() and len(SETS) == 11
    assert sum(bool(facts.split_file) for facts in SETS.values()) == 9
    assert SETS["oxford_pets"].sizes == (2944, 736, 3669)


@pytest.mark.parametrize("name", sorted(name for name, facts in SETS.items() if facts.split_file))
@pytest.mark.parametrize("inside", [False, True])
def test_split_files_join_their_pictures(name, inside, tmp_path):
    """Paths as the published lists write them; data.dir is the folder of all sets, or of this one."""
    facts = SETS[name]
    root = tmp_path / facts.folder
    prefix = {"stanford_cars": "cars_train/", "sun397": "a/abbey/", "eurosat": "Forest/"}.get(name, "x/")
    split = {part: [[f"{prefix}{part}{i}.jpg", i, f"name_{i}"] for i in range(2)] for part in ("train", "val", "test")}
    for part in split.values():
        for path, label, _ in part:
            picture(root / facts.pictures / path, 100 * label)
    (root / facts.split_file).write_text(json.dumps(split))
    found = open_dataset(name, root if inside else tmp_path)
    assert (found.name, found.class_names) == (name, ("name_0", "name_1"))
    x, labels = found.split("train").read(np.array([1]))
    assert labels.tolist() == [1] and abs(int(x[0, 0, 0, 0]) - 100) < 4
    assert any("CoOp's tables have" in note for note in found.notes)


def test_aircraft_and_imagenet_have_lists_of_their_own(tmp_path):
    root = tmp_path / "fgvc_aircraft"
    for i in range(3):
        picture(root / "images" / f"10{i}.jpg")
    (root / "variants.txt").write_text("707-320\n727-200\n")
    for split, image in (("train", 100), ("val", 101), ("test", 102)):
        (root / f"images_variant_{split}.txt").write_text(f"{image} 727-200\n")
    found = open_dataset("fgvc_aircraft", tmp_path)
    assert found.class_names == ("707-320", "727-200") and found.split("test").labels.tolist() == [1]
    (root / "images_variant_test.txt").write_text("102 Concorde\n")
    with pytest.raises(DataError, match="names no variant"):
        open_dataset("fgvc_aircraft", tmp_path)
    root = tmp_path / "imagenet"
    for split in ("train", "val"):
        for synset in ("n01440764", "n01443537"):
            picture(root / "images" / split / synset / "a.jpg")
    (root / "classnames.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    found = open_dataset("imagenet", tmp_path)
    assert found.class_names == ("tench", "goldfish") and len(found.split("test")) == 2
    (root / "classnames.txt").write_text("n01440764 tench\n")
    with pytest.raises(DataError, match="no line for n01443537"):
        open_dataset("imagenet", tmp_path)


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(DataError) as error:
        open_dataset("dtd", tmp_path)
    said = str(error.value)
    assert f"found no images and no split_zhou_DescribableTextures.json in {tmp_path}/dtd or {tmp_path}" in said
    assert "dtd-r1.0.1.tar.gz" in said and "drive.google.com/file/d/1u3_QfB" in said
    picture(tmp_path / "dtd" / "images" / "banded" / "a.jpg")
    with pytest.raises(DataError, match=r"found no split_zhou_DescribableTextures\.json in"):
        open_dataset("dtd", tmp_path)
