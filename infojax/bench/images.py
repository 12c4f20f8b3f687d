"""A set of JPEGs on disk, of any size, and the cost of training from it without holding it in memory.

The pictures are synthetic: 1/f spectra with correlated colours, one texture per class, crops of several sizes and
shapes as in photographs, JPEG quality 90. Their size in bytes and the work of decoding them match photographs; their
content means nothing. An existing folder with the same number of pictures is reused.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infojax.bench import torch_images
from infojax.commands import UsageError
from infojax.data import open_dataset, stream, use_workers
from infojax.data.images import decode
from infojax.tasks import load, selfsup
from infojax.tasks.build import torchssl
from infojax.tasks.config import choices
from infojax.tasks.train import train
from infojax.train.runlog import read_rows

SIZES = ((375, 500), (500, 375), (333, 500), (480, 640), (256, 256), (600, 800))  # height, width
TEXTURE = 1024
TEST = 20  # one picture in 20 is held out
STUDIES = ("supervised", "simclr", "barlow", "mae")


def texture(rng: np.random.Generator, slope: float = 1.1) -> np.ndarray:
    """(1024, 1024, 3) float32 from 0 to 255, periodic: amplitudes 1 / f^slope, mostly of luminance."""
    frequency = np.hypot(np.fft.fftfreq(TEXTURE)[:, None], np.fft.rfftfreq(TEXTURE)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=(3, TEXTURE, TEXTURE)).astype(np.float32), axes=(1, 2))
    planes = np.fft.irfft2(noise / frequency**slope, axes=(1, 2))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mixed = np.einsum("chw,cd->hwd", planes, np.array([[1, 1, 1], [0.3, 0, -0.3], [0.1, -0.2, 0.1]]))
    return np.clip(rng.uniform(90, 150, 3) + 45 * mixed, 0, 255).astype(np.float32)


def write(folder: Path, classes: int, images: int, seed: int = 0) -> None:
    """Writes FOLDER/{train,test}/CLASS/*.jpg; equally many per class, cycling through the sizes."""

    def save(task):
        path, pixels = task
        Image.fromarray(pixels).save(path, quality=90)

    with ThreadPoolExecutor() as threads:
        for label in range(classes):
            rng = np.random.default_rng((seed, label))
            whole, tasks = texture(rng), []
            for split in ("train", "test"):
                (folder / split / f"class_{label:04d}").mkdir(parents=True, exist_ok=True)
            for i in range(label, images, classes):
                height, width = SIZES[i % len(SIZES)]
                rows = np.arange(height) + rng.integers(TEXTURE)
                columns = np.arange(width) + rng.integers(TEXTURE)
                pixels = whole[rows[:, None] % TEXTURE, columns[None] % TEXTURE] * rng.uniform(0.7, 1.2)
                split = "test" if i // classes % TEST == TEST - 1 else "train"
                tasks.append(
                    (folder / split / f"class_{label:04d}" / f"{i}.jpg", np.clip(pixels, 0, 255).astype(np.uint8))
                )
            list(threads.map(save, tasks))


def images_per_second(read: Callable[[np.ndarray], Any], count: int, total: int, batch: int) -> float:
    """Images/s over batches in random order, after one batch that starts the reader."""
    order = np.random.default_rng(0).permutation(total)[: count + batch]
    read(order[:batch])
    begun = time.perf_counter()
    for start in range(batch, len(order), batch):
        read(order[start : start + batch])
    return (len(order) - batch) / (time.perf_counter() - begun)


def reading(root: Path, size: int, count: int, batch: int) -> Iterator[dict[str, Any]]:
    """Images/s of the stream with threads and with processes, compared with Pillow, PyTorch and torchvision."""
    source: Any = open_dataset("folder", root, size=size).split("train")
    count, cores = min(count, len(source) - batch), len(os.sched_getaffinity(0))
    each = partial(decode, size=size)

    def streamed():
        """The read-ahead of a run."""
        order = np.random.default_rng(0).permutation(len(source))[: count + batch]
        steps, begun = len(order) // batch, 0.0
        for step, _, _ in stream(source, lambda k: order[k * batch : (k + 1) * batch], range(steps)):
            begun = begun or (time.perf_counter() if step == 0 else begun)
        return (steps - 1) * batch / (time.perf_counter() - begun)

    def row(what, rate):
        return {"kind": "reading", "what": what, "size": size, "images": count, "cores": cores, "images_per_s": rate}

    for name, workers in (("threads", 0), (f"{cores} processes", cores)):
        use_workers(workers)
        yield row(f"stream, {name}", streamed())
    use_workers(0)
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        paths = source.paths
        yield row(
            "Pillow in a process pool",
            images_per_second(
                lambda rows: list(pool.map(each, [paths[i] for i in rows], chunksize=16)), count, len(source), batch
            ),
        )
    order = np.random.default_rng(0).permutation(len(source))[: count + batch].tolist()
    with suppress(ImportError):
        rate = torch_images.loading(torch_images.Pictures(source.paths, each), order, batch, cores)
        yield row("torch DataLoader, Pillow", rate)
        pictures = torch_images.torchvision_pictures(root / "train", size)
        yield row("torch DataLoader, torchvision", torch_images.loading(pictures, order, batch, cores))


def config_of(name: str, root: Path, size: int, batch: int, steps: int) -> Any:
    """The config of ResNet-50, or of a masked autoencoder, streaming from the folder."""
    known = dict(data="folder", model="mae_tiny" if name == "mae" else "resnet50", seeds=1)
    if name == "supervised":
        chosen = choices("small", **known)
        config = torchssl("bench", chosen, lr=0.03, weight_decay=5e-4, batch_size=batch, schedule="cosine", steps=steps)
    else:
        config = selfsup.defaults("bench", choices("small", method=(name,), **known))
        config.optimizer = selfsup.optimizer_settings("sgd", lr=0.03, weight_decay=1e-4, schedule="cosine")
        config.objective.batch_size, config.data.views = batch, {"mae": "mae", "simclr": "simclr"}.get(name, "byol")
        if name == "mae":
            config.model.options = dict(patch=16, decoder=(192, 4, 3))
        config.steps = steps
    config.data.dir, config.data.options, config.data.stream = str(root), dict(size=size), "always"
    config.evaluate.update(points=0, train_samples=64, test_samples=64)
    config.log.every, config.checkpoint.every, config.report.draw = steps, 0, False
    return config


def training(root: Path, size: int, batch: int, steps: int) -> Iterator[dict[str, Any]]:
    """Milliseconds per step when reading from disk, and the share of it in which the device waits for data."""
    for name in STUDIES:
        config = config_of(name, root, size, batch, steps)
        with tempfile.TemporaryDirectory() as folder:
            train(load(config.task).study(config), config, Path(folder) / "run", say=lambda *_: None)
            timing = [row for row in read_rows(Path(folder) / "run") if row["kind"] == "timing"][-1]
        taken = timing["steps_seconds"] + timing["data_seconds"]
        yield {
            "kind": "training", "what": f"{name}, {config.model.name}", "size": size, "batch": batch, "steps": steps,
            "ms": 1e3 * taken / (steps - 1), "images_per_s": batch * (steps - 1) / taken,
            "waits_share": timing["data_seconds"] / taken,
        }  # fmt: skip


def run(
    quick: bool = False, out: str = "", classes: int | None = None, images: int | None = None, only: str = ""
) -> Iterator[dict[str, Any]]:
    """Rows about writing, reading and training.

    Args:
      only: "reading" or "training"; both by default.
      out: folder of the pictures, which is kept; a temporary one by default.
    """
    if only not in ("", "reading", "training"):
        raise UsageError(f"--only {only}: expected reading or training")
    classes, images = classes or (10 if quick else 1000), images or (400 if quick else 20_000)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(out or temporary).expanduser()
        begun, there = time.perf_counter(), sum(1 for _ in root.glob("*/*/*.jpg"))
        if there and there != images:
            raise SystemExit(f"{root} has {there:,} pictures, not {images:,}; give another --out or --images={there}")
        if not there:
            write(root, classes, images)
        size = sum(path.stat().st_size for path in root.glob("*/*/*.jpg"))
        yield {
            "kind": "written", "images": images, "classes": classes, "gb": size / 1e9,
            "kb_an_image": size / 1e3 / images, "seconds": time.perf_counter() - begun if not there else None,
        }  # fmt: skip
        if only != "training":
            yield from reading(root, 64 if quick else 224, 320 if quick else 2000, 64)
        if only != "reading":
            yield from training(root, 32 if quick else 64, 8 if quick else 16, 4 if quick else 8)
