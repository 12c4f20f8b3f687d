"""The data that a compiled program moves between devices, read from its HLO."""

import math
import re
from typing import Any, NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
# name = shapes kind(...): one shape or a tuple of them, with the layouts in braces removed.
INSTRUCTION = re.compile(rf"= (?P<shapes>\(.*?\)|\S+) (?P<kind>{KINDS})(?P<start>-start)?\(")
SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
LABEL = re.compile(r'channel_id=\d+|op_name="[^"]*"')


class Collective(NamedTuple):
    """One instruction: its kind, and the bytes of its result on one device. The body of a loop counts once."""

    kind: str
    bytes: int


def collectives(compiled: Any) -> list[Collective]:
    """The `Collective`s of `jax.jit(f).lower(...).compile()`, in program order."""
    found, seen, fusion = [], set(), False
    for line in compiled.as_text().splitlines():
        if line.startswith(("%", "ENTRY")):
            fusion = "fus" in line.split(" ")[0]
        match = INSTRUCTION.search(re.sub(r"\{[^{}]*\}", "", line))
        if not match:
            continue
        sizes = [BYTES[kind] * math.prod(map(int, filter(None, n.split(",")))) for kind, n in SHAPE.findall(match[1])]
        # An asynchronous permutation or gather lists operand, result and flags.
        if match["start"] and match["kind"] != "all-reduce":
            sizes = sizes[1:2]
        one = Collective(match["kind"], sum(sizes))
        # On TPU, the start, middle and end of a collective that overlaps with computation are fusions that all name it.
        label = one, *LABEL.findall(line)
        if not (fusion and label in seen):
            found.append(one)
        seen.add(label)
    return found


def bytes_moved(compiled: Any) -> dict[str, int]:
    """Kind -> total bytes of the collectives of that kind."""
    found: dict[str, int] = {}
    for kind, size in collectives(compiled):
        found[kind] = found.get(kind, 0) + size
    return found
