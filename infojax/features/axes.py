"""The meaning of an array's axes: rows, layers, columns.

Each axis has a letter: n samples, b prompts (a batch), t tokens, l layers, d columns. Rows run over n, b and t in the
order of the axes; each index of l is a layer with its own report; several d are flattened in order. The hidden states
of a language model are "l b t d" after torch.stack, and "t l d" in the files of vLLM.
"""

import argparse
import itertools
import math
from collections.abc import Iterable, Mapping

from infojax.features.sources import ROW_AXES, FeatureFileError, StoredArray

WORDS = {
    "sample": "n", "samples": "n", "image": "n", "images": "n", "batch": "b", "prompt": "b", "prompts": "b",
    "token": "t", "tokens": "t", "seq": "t", "sequence": "t", "time": "t", "layer": "l", "layers": "l",
    "dim": "d", "hidden": "d", "column": "d", "columns": "d", "channel": "d", "height": "d", "width": "d",
}  # fmt: skip
MEANS = "n samples, b prompts, t tokens, l layers, d columns"
HIDDEN = ("hidden_states", "hidden_state", "last_hidden_state", "last_hidden_states")
TOKENS = ("attention_mask", "token_ids", "input_ids")  # arrays with an entry for each token


def axes(text: str) -> str:
    """An argparse type: one letter per axis, from "l b t d", "l,b,t,d", "lbtd" or "layer,batch,token,dim"."""
    parts = text.replace(",", " ").lower().split()
    if len(parts) == 1 and parts[0] not in WORDS:
        parts = list(parts[0])
    found = "".join(WORDS.get(part, part) for part in parts)
    if problem := _problem(found):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: {problem}; expected one letter per axis: {MEANS}")
    return found


def _problem(found: str) -> str:
    if unknown := set(found) - set(ROW_AXES + "ld"):
        return f"{sorted(unknown)[0]!r} is not an axis"
    if twice := [letter for letter in ROW_AXES + "l" if found.count(letter) > 1]:
        return f"{twice[0]} is named twice"
    if not set(found) & set(ROW_AXES):
        return "no axis of rows (n, b or t)"
    return "" if "d" in found else "no axis of columns (d)"


def spaced(letters: str) -> str:
    """Formatted as a flag's value: 'l b t d'."""
    return f"'{' '.join(letters)}'"


def axes_of(
    name: str, array: StoredArray, given: str | None, arrays: Mapping[str, StoredArray], labels: StoredArray | None
) -> str:
    """The axes of an array of features: as given, or inferred from names and shapes.

    Args:
      name: of the array in its file.
      array: the features.
      given: value of --axes.
      arrays: all arrays of the file, among which a mask or token ids may reveal the axes.
      labels: one per row.
    Raises:
      FeatureFileError: the axes do not fit or cannot be inferred; one line.
    """
    shape = array.full_shape
    if given is not None:
        if len(given) != len(shape):
            raise FeatureFileError(
                f"{array.where} has shape {shape}, {len(shape)} axes; --axes {spaced(given)} names {len(given)}"
            )
        return given
    if len(shape) <= 2 or sum(size > 1 for size in shape[1:]) < 2 and shape[0] > 1:
        return "n" + "d" * (len(shape) - 1)
    found = list(_by_names(name, shape, arrays, labels))
    if len(found) == 1:
        return found[0]
    choices = found or [letters for letters in _usual(len(shape)) if labels is None or _fit(letters, shape, labels)]
    notes = [f"{spaced(letters)} ({_described(letters, shape)})" for letters in (choices or _usual(len(shape)))[:5]]
    raise FeatureFileError(f"{array.where} has shape {shape}; pass --axes {', '.join(notes)}: {MEANS}")


def _by_names(
    name: str, shape: tuple[int, ...], arrays: Mapping[str, StoredArray], labels: StoredArray | None
) -> Iterable[str]:
    """The axes that names and shapes allow, if they are informative."""
    last = name.lower().rpartition(".")[2]
    if last not in HIDDEN:
        if labels is not None and len(shape) == 3 and labels.full_shape == (shape[1],) != (shape[0],):
            yield "lnd"
        return
    tokens = [array.full_shape for other, array in arrays.items() if other.lower().rpartition(".")[2] in TOKENS]
    if "token_ids" in arrays and len(shape) == 3 and tokens == [shape[:1]]:  # vLLM's layout, whatever the sizes
        yield "tld"
        return
    if last.startswith("last") and len(shape) == 3:
        yield "btd"
    elif tokens:
        rows = "t" if len(tokens[0]) == 1 else "bt"
        rest = "l" * (len(shape) - 1 - len(rows))
        for letters in sorted({"".join(p) for p in itertools.permutations(rows + rest)}):
            sizes = tuple(size for letter, size in zip(letters, shape, strict=False) if letter in ROW_AXES)
            if letters.replace("l", "") == rows and len(rest) < 2 and sizes == tokens[0]:
                yield letters + "d"


def _usual(count: int) -> tuple[str, ...]:
    return {3: ("lnd", "nld", "btd", "ndd"), 4: ("lbtd", "bltd", "nddd")}.get(count, ("n" + "d" * (count - 1),))


def _fit(letters: str, shape: tuple[int, ...], labels: StoredArray) -> bool:
    sizes = tuple(size for letter, size in zip(letters, shape, strict=True) if letter in ROW_AXES)
    return labels.full_shape[:1] in (sizes[:1], (math.prod(sizes),))


def _described(letters: str, shape: tuple[int, ...]) -> str:
    """`12 layers of 64 rows x 96 columns`."""
    sizes = dict.fromkeys("lrd", 1)
    for letter, size in zip(letters, shape, strict=True):
        sizes["r" if letter in ROW_AXES else letter] *= size
    layers = f"{sizes['l']} layers of " if "l" in letters else ""
    return f"{layers}{sizes['r']} rows x {sizes['d']} columns"
