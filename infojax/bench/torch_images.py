"""Reading a folder of pictures with PyTorch: its DataLoader around our decoder, and torchvision's own pictures.

Imported without torch; each function needs it, and `torchvision_pictures` torchvision.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Pictures:
    """A data set for torch.utils.data: `each` of a path."""

    def __init__(self, paths: Sequence[Path], each: Callable[[Any], np.ndarray]) -> None:
        self.paths, self.each = paths, each

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.each(self.paths[i])


class Upright:
    """A PIL image as a (size, size, 3) uint8 tensor, as torchvision's references evaluate; samples as `decode`'s."""

    def __init__(self, size: int) -> None:
        from torchvision import transforms

        cubic = transforms.InterpolationMode.BICUBIC
        self.steps = transforms.Compose(
            [transforms.Resize(size, cubic), transforms.CenterCrop(size), transforms.PILToTensor()]
        )

    def __call__(self, image: Any) -> Any:
        return self.steps(image).permute(1, 2, 0).contiguous()


def torchvision_pictures(folder: Path, size: int) -> Any:
    """torchvision's `ImageFolder`, with the shorter side resized (bicubic) and the middle square kept: the same job."""
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder), Upright(size))


def loading(data: Any, order: Sequence[int], batch: int, workers: int) -> float:
    """Images/s of a DataLoader with worker processes over `order`, after a first batch that starts them."""
    import torch

    loader = iter(
        torch.utils.data.DataLoader(
            torch.utils.data.Subset(data, list(order)), batch, num_workers=workers, multiprocessing_context="spawn"
        )
    )
    next(loader)
    begun = time.perf_counter()
    found = sum(len(batch[0] if isinstance(batch, list | tuple) else batch) for batch in loader)
    return found / (time.perf_counter() - begun)
