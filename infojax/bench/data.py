"""Images/s of the input pipeline: views made on the device, and records streamed from disk, compared with Pillow.

Pillow runs on one core, image by image, as the workers of a PyTorch loader do; a device uses all it has.
"""

import io
import os
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from infojax.data import RECIPES, Recipe, normalise, open_dataset, order, stream, strong, view, weak
from infojax.data.prepare import write_records
from infojax.data.randaugment import GREY, OPERATIONS

BATCH, SIZE = 448, 32


def best(run: Callable[[], Any], repeats: int = 10) -> float:
    """Fewest seconds per call, after a warm-up call."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def pillow_weak(image: Any) -> Any:
    """Flip and crop of the image padded by reflection; NumPy does the padding, as in torchvision."""
    x = np.asarray(image if random.random() < 0.5 else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    x = np.pad(x, ((4, 4), (4, 4), (0, 0)), "reflect")
    row, column = random.randrange(9), random.randrange(9)
    return x[row : row + SIZE, column : column + SIZE]


def pillow_operation(image: Any, name: str, v: float) -> Any:
    """One operation of RandAugment as TorchSSL calls Pillow for it; the tests use it as an oracle."""
    width, height = image.size

    def affine(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    return {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(v),
        "Color": lambda: ImageEnhance.Color(image).enhance(v),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(v),
        "Equalize": lambda: ImageOps.equalize(image),
        "Identity": lambda: image,
        "Posterize": lambda: ImageOps.posterize(image, int(v)),
        "Rotate": lambda: image.rotate(v),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(v),
        "ShearX": lambda: affine(1, v, 0, 0, 1, 0),
        "ShearY": lambda: affine(1, 0, 0, v, 1, 0),
        "Solarize": lambda: ImageOps.solarize(image, v),  # type: ignore[arg-type]  # as TorchSSL does
        "TranslateX": lambda: affine(1, 0, v * width, 0, 1, 0),
        "TranslateY": lambda: affine(1, 0, 0, 0, 1, v * height),
    }[name]()


def pillow_cutout(image: Any, x: float, y: float, side: float) -> Any:
    """TorchSSL's Cutout of a given square, in pixels."""
    width, height = image.size
    x, y = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    fill = GREY if image.mode == "RGB" else Image.new("RGB", (1, 1), GREY).convert("L").getpixel((0, 0))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((x, y, min(width, x + side), min(height, y + side)), fill)
    return image


def pillow_strong(image: Any) -> Any:
    """TorchSSL's strong view: three operations and Cutout on the picture, followed by the weak view."""
    for name, (low, high) in random.choices(list(OPERATIONS.items()), k=3):
        image = pillow_operation(image, name, random.uniform(low, high))
    x, y, side = random.uniform(1, SIZE), random.uniform(1, SIZE), random.uniform(0, SIZE / 2)
    return pillow_weak(pillow_cutout(image, x, y, side))


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows: what, images, milliseconds and images/s of infojax, and the same for Pillow."""
    train: Any = open_dataset("synthetic", num_train=2000 if quick else 10_000).split("train")
    data, key = jax.device_put(train.x), jax.random.key(0)

    def batch(data, step, *transforms):
        x = data[order(key, step, BATCH, len(train))]
        return [normalise(transform(jax.random.fold_in(key, step), x), *[(127.0,) * 3] * 2) for transform in transforms]

    pictures = [Image.fromarray(x) for x in train.x[:BATCH]]
    views = {
        "weak": ((weak,), [pillow_weak]),
        "strong": ((strong,), [pillow_strong]),
        "weak and strong": ((weak, strong), [pillow_weak, pillow_strong]),
    }
    rows = []
    for name, (ours, theirs) in views.items():
        step = jax.jit(lambda data, step, ours=ours: batch(data, step, *ours))
        start = time.perf_counter()
        jax.block_until_ready(step(data, 0))
        first = time.perf_counter() - start
        taken = best(lambda step=step: jax.block_until_ready(step(data, 1)))
        pillow = best(lambda theirs=theirs: [view(x) for view in theirs for x in pictures], 3)
        rows.append(_row(f"draw, {name}, normalise", BATCH * len(ours), taken, pillow, first))
    return rows + two_views(train, quick) + [_records(train, 1000 if quick else 5000)]


def pillow_view(image: Any, recipe: Recipe, size: int) -> Any:
    """A view of `infojax.data.views` as the worker of a PyTorch loader makes it with Pillow, uint8."""
    width, height = image.size
    for _ in range(10):
        area, ratio = width * height * random.uniform(*recipe.area), random.uniform(*np.log(recipe.ratio))
        w, h = round((area * np.exp(ratio)) ** 0.5), round((area / np.exp(ratio)) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w, h = width, height
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
    if random.random() < recipe.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < recipe.jitter_share:
        strengths = dict(enumerate(recipe.jitter))
        for i in random.sample(range(4), 4):
            if i < 3:
                enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[i]
                image = enhance(image).enhance(random.uniform(max(0, 1 - strengths[i]), 1 + strengths[i]))
            else:
                shift = round(255 * random.uniform(-strengths[i], strengths[i]))
                hue, *rest = image.convert("HSV").split()
                turned = Image.fromarray((np.asarray(hue) + np.uint8(shift % 256)).astype(np.uint8))
                image = Image.merge("HSV", (turned, *rest)).convert("RGB")
    if random.random() < recipe.grey:
        image = image.convert("L").convert("RGB")
    if random.random() < recipe.blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*recipe.sigma)))
    return np.asarray(image)


def two_views(train: Any, quick: bool) -> list[dict[str, Any]]:
    """Two SimCLR views of each picture, at 32 x 32 and 224 x 224, on the device and with Pillow."""
    rows, large = [], np.random.default_rng(0).integers(0, 256, (16 if quick else 64, 256, 256, 3), dtype=np.uint8)
    for name, data, size in (("simclr_small", train.x[:BATCH], SIZE), ("simclr", large, 224)):
        recipe = RECIPES[name][0]

        @jax.jit
        def step(x, key, recipe=recipe, size=size):
            views = [view(own, x, recipe, size) for own in jax.random.split(key)]
            return [normalise(z, *[(127.0,) * 3] * 2) for z in views]

        x, key = jax.device_put(data), jax.random.key(0)
        start = time.perf_counter()
        jax.block_until_ready(step(x, key))
        first = time.perf_counter() - start
        taken = best(lambda step=step, x=x, key=key: jax.block_until_ready(step(x, key)), 3)
        pictures = [Image.fromarray(picture) for picture in data]
        pillow = best(lambda p=pictures, r=recipe, s=size: [pillow_view(q, r, s) for q in p for _ in range(2)], 1)
        rows.append(_row(f"two views, {name}, {size} x {size}", 2 * len(data), taken, pillow, first))
    return rows


def _records(train, n):
    """Reading a set of PNGs in random order, compared with decoding the same bytes from memory."""
    encoded = []
    for x in train.x[:n]:
        buffer = io.BytesIO()
        Image.fromarray(x).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        columns = {"train": {"image": train.x[:n], "label": train.labels[:n]}}
        write_records("cifar10", columns, folder)
        source = open_dataset("tfds:cifar10", os.fspath(folder)).split("train")
        rows = np.random.default_rng(0).permutation(n)
        steps = n // BATCH

        def read():
            for _ in stream(source, lambda step: rows[step * BATCH : (step + 1) * BATCH], range(steps)):
                pass

        taken = best(read, 3)
    pillow = best(lambda: [np.asarray(Image.open(io.BytesIO(content))) for content in encoded[: steps * BATCH]], 3)
    return _row("stream ArrayRecord (PNG)", steps * BATCH, taken, pillow)


def _row(what, images, taken, pillow, first=None):
    return {
        "what": what, "images": images, "ms": 1e3 * taken, "images_per_s": images / taken, "first_call_s": first,
        "pillow_ms": 1e3 * pillow, "pillow_images_per_s": images / pillow, "ratio": pillow / taken,
    }  # fmt: skip
