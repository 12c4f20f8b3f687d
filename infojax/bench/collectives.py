"""What a compiled program moves between devices, read from its HLO."""

import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# name = shapes kind(...): the shapes are a single one or a tuple, with layouts in braces.
INSTRUCTION = re.compile(rf"= (?P<shapes>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(", re.MULTILINE)
SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")


class Collective(NamedTuple):
    """One instruction: its kind, and the bytes of its result on one device. A loop's body counts once."""

    kind: str
    bytes: int


def collectives(compiled):
    """The `Collective`s of `jax.jit(f).lower(...).compile()`, in the order of the text."""
    found = []
    for match in INSTRUCTION.finditer(_without_layouts(compiled.as_text())):
        sizes = [
            BYTES[kind] * math.prod(map(int, filter(None, dims.split(","))))
            for kind, dims in SHAPE.findall(match["shapes"])
        ]
        # A started permutation or gather names operand, result and flags.
        if match["start"] and match["kind"] != "all-reduce":
            sizes = sizes[1:2]
        found.append(Collective(match["kind"], sum(sizes)))
    return found


def _without_layouts(text):
    return re.sub(r"\{[^{}]*\}", "", text)


def bytes_moved(compiled):
    """Kind -> bytes of all collectives of that kind."""
    found = {}
    for kind, size in collectives(compiled):
        found[kind] = found.get(kind, 0) + size
    return found
