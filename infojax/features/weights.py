"""The weight matrices of a checkpoint: which arrays of a file they are, and along which side they are read."""

import math
from typing import NamedTuple

import jax
import numpy as np

from infojax.features.folders import open_together
from infojax.features.sources import FeatureFileError, StoredArray


class Weight(NamedTuple):
    """A matrix (rows, columns) of weights, and the same numbers as a tall matrix, for reading in blocks."""

    shape: tuple[int, int]
    tall: StoredArray


def open_weights(path: str) -> tuple[dict[str, Weight], str]:
    """The weight matrices of a file, folder or glob by name, and a note on what was left out.

    Every array of floats with two or more axes counts: (outputs, inputs) in PyTorch, where convolution kernels are
    (outputs, inputs x height x width). In Flax, whose kernels end in the outputs, the rows are the first axis, too: the
    singular values of a dense layer do not depend on that.

    Raises:
      FeatureFileError: there is none.
    """
    together = open_together(path)
    found, others = {}, []
    for name, array in together.arrays.items():
        floats = not array.refusal and jax.dtypes.issubdtype(array.dtype, np.floating)
        if not floats or len(array.full_shape) < 2 or 0 in array.full_shape:
            others.append(name)
            continue
        rows, columns = array.full_shape[0], math.prod(array.full_shape[1:])
        inner = "bt"[: len(array.full_shape) - 2] + "n"
        turned = rows < columns and len(inner) == len(array.full_shape) - 1
        found[name] = Weight((rows, columns), array.along("d" + inner) if turned else array)
    if not found:
        raise FeatureFileError(f"{path}: holds no weight matrix: no array of floats with two or more axes")
    flattened = sum(len(weight.tall.full_shape) > 2 for weight in found.values())
    notes = [f"{len(found)} weight {'matrix' if len(found) == 1 else 'matrices'}"]
    notes += [f"{flattened} of which flatten all axes but the first"] if flattened else []
    if others:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        notes.append(f"left out, with fewer than two axes or not of floats: {len(others)} ({names})")
    return found, "; ".join(filter(None, [together.notes, ", ".join(notes)]))
