"""A row of metrics.jsonl: its kinds, what tells it apart from other rows, and what each of its keys may hold.

Everything else in a row is a measured number, under the name of its quantity.
"""

NUMBER = (int, float)
KINDS = ("train", "eval", "timing")  # from the batch just trained on, an evaluator, the clock
# What a row may be measured along besides time: name -> label. A row that carries one is not on the axis of time.
COORDINATES = {"weight": "interpolation weight", "sparsity": "sparsity"}
# Of two rows that agree in all of these (and in the swept hyper-parameter), the later one counts.
IDENTIFYING = {"kind": str, "step": int, "run": int, "split": str, "layer": str, **dict.fromkeys(COORDINATES, NUMBER)}
OF_LAYER = {"layer": str, "depth": NUMBER, "dim": int}  # "depth" and "dim" occur only in rows that have "layer"
# Keys that say how a row came about; None allows anything.
ORIGIN = {
    "time": None, "seed": int, "labelled_seed": int, "evaluator": str, "n": int, "convention": str, "frozen": bool,
    "of_frozen": bool, "end": None, "not_finite": str,
}  # fmt: skip
TYPES = IDENTIFYING | OF_LAYER | ORIGIN
SEVERAL_A_SPLIT = COORDINATES.keys() | {"layer"}  # rows with these have several values of one name at a step
# Points in the plane and in space: lists, each as long as "labels".
POINTS = ("tsne_x", "tsne_y"), ("cloud_x", "cloud_y", "cloud_z")
# Lists with a number for each of "class_names"; "similarity_map", if present, has such a list for each.
BY_CLASS = ("class_count", "class_accuracy", "class_entropy", "class_own", "class_hardest")


def quantities(row: dict) -> set[str]:
    """The keys of a row that are neither its place nor its origin; coordinates are among them."""
    marks = (IDENTIFYING | ORIGIN).keys() - SEVERAL_A_SPLIT
    return row.keys() - marks - (OF_LAYER.keys() if "layer" in row else set())
