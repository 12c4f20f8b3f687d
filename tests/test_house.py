"""The house rules: who may import whom, what `import infojax` loads, which names it promises."""

import ast
import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import infojax
from infojax.objectives import Objective

PACKAGE = Path(infojax.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# The room on the left may import itself and what is on the right, nothing else of infojax: nothing
# imports upward. A dot narrows the right to one module. "" is infojax/__init__.py.
ROOMS = ("measures", "parallel", "models", "objectives", "data", "train", "evaluate", "report")
BELOW = (*ROOMS, "processes", "outputs", "commands", "suggestions")
TASKS = (*BELOW, "analysis", "features")
MAY_IMPORT = {
    "measures": (),
    "parallel": ("measures",),
    "processes": (),
    "outputs": (),
    "commands": (),
    "__main__": ("commands",),
    "suggestions": (),
    "models": ("suggestions",),
    "data": ("parallel", "suggestions"),
    "objectives": ("measures", "parallel"),
    "train": ("objectives", "data", "models", "parallel", "processes", "outputs"),
    "evaluate": ("measures", "parallel", "objectives", "data", "train", "suggestions"),
    "report": ("measures.catalogue", "measures.theory", "train.runlog", "train.schema", "outputs", "commands"),
    "analysis": ("measures", "parallel", "processes", "report"),
    "features": ("suggestions",),
    "monitor": ("measures", "outputs", "suggestions"),
    "": ("measures", "analysis", "monitor"),
    "tasks": TASKS,
    "main": (*TASKS, "tasks"),
    "measure": (*TASKS, "tasks"),
    "bench": (*TASKS, "tasks", ""),
}
# Edges that may only be taken inside a function: a notebook loads no figures before it draws one.
LAZY = {("analysis", "report")}

# Packages with one home, so that replacing one touches one place; and rooms with a short diet.
HOMES = {
    "flax": ("models",),
    "orbax": ("train.checkpoint",),
    "tensorflow_datasets": ("data",),
    "matplotlib": ("report",),
    "tensorflow": (),  # never in our processes: it is a tool that prepares data sets
}
DIETS = {"measures": {"jax", "numpy", "threadpoolctl"}, "models": {"flax", "jax", "numpy", "safetensors", "ftfy"}}


def imports(tree, module, is_package):
    """Yields (dotted name, line, whether it runs at import) for each import of a module."""

    def visit(node, at_import):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    here = ["infojax", *filter(None, module.split("."))]
                    here = here[: len(here) - child.level + is_package]
                    base = ".".join([*here, base]).strip(".")
                # `from infojax import data` imports the room data, `from infojax import mir` the
                # face; only the names tell them apart
                for alias in child.names:
                    name = f"{base}.{alias.name}"
                    known = name.removeprefix("infojax.") in MODULES
                    yield name if known else base, child.lineno, at_import
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, at_import and not function)

    yield from visit(tree, True)


def within(name, homes):
    return any(name == home or name.startswith(home + ".") for home in homes)


def broken_rules(module, source, is_package=False):
    """What a module imports against the tables above, one line of text an offence."""
    room, offences = module.split(".")[0], []
    if room not in MAY_IMPORT:
        return [f"infojax/{room} has no row in MAY_IMPORT: say what it may import"]
    for name, line, at_import in imports(ast.parse(source), module, is_package):
        top = name.split(".")[0]
        where = f"infojax/{module.replace('.', '/')}:{line} imports {name}"
        if top == "infojax":
            target = name.removeprefix("infojax").strip(".")
            if target.split(".")[0] == room:
                continue
            allowed = MAY_IMPORT[room]
            if not (within(target, filter(None, allowed)) or (target == "" and "" in allowed)):
                offences.append(f"{where}, which is not among {allowed}")
            top = target.split(".")[0]
        elif top in HOMES and not within(module, HOMES[top]):
            offences.append(f"{where}, which only {HOMES[top] or 'nobody'} may")
        elif room in DIETS and top not in DIETS[room] | set(sys.stdlib_module_names):
            offences.append(f"{where}; it may use {sorted(DIETS[room])} only")
        if at_import and (room, top) in LAZY:
            offences.append(f"{where} outside a function")
    return offences


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_upward(module):
    path = MODULES[module]
    assert broken_rules(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("measures.joint", "from infojax.report import tables"),
        ("measures.joint", "from infojax import report"),
        ("measures.joint", "from ..report import tables"),
        ("measures.joint", "def f():\n  import infojax.analysis"),
        ("measures.joint", "import scipy.linalg"),
        ("measures.joint", "def f():\n  import sklearn"),
        ("measures", "import infojax"),
        ("report.page", "from infojax.measures import joint"),
        ("report.page", "from infojax.measures import mir"),
        ("analysis", "from infojax.report import page"),
        ("train.loop", "import orbax.checkpoint"),
        ("data.sources", "import tensorflow as tf"),
        ("objectives.supervised", "from flax import linen"),
        ("helpers", "import math"),
    ],
)
def test_the_rules_see_an_offence(module, source):
    assert len(broken_rules(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "measures.joint",
            "from infojax.measures import spectra\nfrom . import moments\nimport jax",
        ),
        (
            "report.page",
            "from infojax.measures import theory\nfrom infojax.measures.theory import etf",
        ),
        ("analysis", "def plot():\n  from infojax.report import figures"),
        ("train.checkpoint", "import orbax.checkpoint as ocp"),
        ("objectives.supervised", "import optax\nfrom infojax.measures.joint import mir"),
        ("bench.spectra", "import infojax as ij\nfrom infojax import mir"),
    ],
)
def test_the_rules_allow_what_they_should(module, source):
    assert broken_rules(module, source) == []


def unannotated(source, inherits=False):
    """Public functions and methods of a module that leave out a type of an argument or of the result.

    With `inherits` the methods of `Objective` may leave them out.
    """

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
                    continue
                if prefix and inherits and node.name in {*vars(Objective), *Objective.__annotations__}:
                    continue  # its types stand in the base: a method's file reads like its equation
                given = node.args
                arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                first = bool(prefix) and not any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
                types = [a.annotation for a in filter(None, arguments[first:])] + [node.returns]
                if None in types:
                    yield f"{prefix}{node.name}"

    return list(visit(ast.parse(source).body, ""))


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_say_what_they_take_and_return(module):
    typed_by_the_base = module.startswith(("objectives.semisup", "objectives.selfsup"))
    assert unannotated(MODULES[module].read_text(), typed_by_the_base) == []


def test_a_missing_type_is_seen():
    source = "def f(x: int, *, y=1) -> int: ...\ndef g(x: int): ...\ndef h(x: int) -> int: ...\ndef _f(x): ..."
    assert unannotated(source + "\nclass A:\n  def f(self) -> int: ...\n  def g(self, x) -> int: ...") == [
        "f",
        "g",
        "A.g",
    ]


def test_files_are_written_by_one_function():
    """`infojax.outputs` keeps links, devices and the old file where a write fails; nothing else is to replace files."""
    words = ("os.replace", ".write_text(", ".write_bytes(")
    found = {m for m, path in MODULES.items() if any(word in path.read_text() for word in words)}
    assert found == {"outputs"}


def loaded_by(statement):
    """Packages outside the standard library that a fresh interpreter has after `statement`."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}
    return {name for name in names if not name.startswith("_")} - set(sys.stdlib_module_names)


def test_import_infojax_loads_jax_and_numpy_only():
    assert loaded_by("import infojax") - loaded_by("import jax, jax.numpy") == {"infojax"}


def test_no_module_has_the_name_of_an_export():
    exports = {name for name in infojax.__all__ if not inspect.ismodule(getattr(infojax, name))}
    assert exports & {part for module in MODULES for part in module.split(".")} == set()


# Names that notebooks rely on, with how they are called. Positional parameters in their order, then
# those that are keywords; a measure may have more keywords than the promise.
Z1_Z2 = "(z1, z2, *, alpha=1.0, center=False, weights=None)"
PROMISES = {
    "gram": "(z)",
    "matrix_entropy": "(z, *, alpha=1.0, center=False, weights=None)",
    "joint_entropy": Z1_Z2,
    "mutual_information": Z1_Z2,
    "mir": Z1_Z2,
    "hdr": Z1_Z2,
    "matrix_entropy_from_gram": "",
    "joint_entropy_from_gram": "",
    "mutual_information_from_gram": "",
    "mir_from_gram": "",
    "hdr_from_gram": "",
    "head_rows": "(head, labels)",
    "interplay": "(z, labels, head, *, weights=None, center=False, route=None)",
    "effective_rank": "",
    "effective_rank_from_gram": "",
    "rankme": "(z, eps=1e-7)",
    "coding_rate": "(z, mu=1.0, *, form='code')",
    "matrix_jsd": "(k1, k2)",
    "spectrum_jsd": "(k1, k2)",
    "eigenspace_jsd": "(k1, k2)",
    "matrix_cross_entropy": "(p, q)",
    "class_stats": "(z, labels, num_classes)",
    "nc1": "(z, labels, num_classes=None, *, convention='thesis')",
    "nc1_from_stats": "",
    "nc2": "",
    "nc3": "",
    "nc4": "",
    "cdnv": "",
    "davies_bouldin": "",
    "neural_collapse": "(z, labels, head, bias=None)",
    "relabel": "(labels, num_classes)",
    "v_information": "(cross_entropy, num_classes, *, base=2)",
    "nc_limits": "(num_classes, *, counts=None, mean_energy=0.0)",
    "analyze": "(features, labels=None, head=None, bias=None)",
}


@pytest.mark.parametrize("name", PROMISES)
def test_promised_functions(name):
    function = getattr(infojax, name)
    assert name in infojax.__all__
    assert inspect.getdoc(function), f"infojax.{name} has no docstring"
    if PROMISES[name]:
        promised = ast.parse(f"def f{PROMISES[name]}: pass").body[0].args
        given = inspect.signature(function).parameters
        assert [p.arg for p in promised.args] == list(given)[: len(promised.args)]
        defaults = zip(
            [*promised.args[::-1], *promised.kwonlyargs],
            [*promised.defaults[::-1], *[None] * (len(promised.args) - len(promised.defaults))] + promised.kw_defaults,
            strict=True,
        )
        for argument, default in defaults:
            assert argument.arg in given
            if default is not None:
                assert given[argument.arg].default == ast.literal_eval(default)


def test_promised_types():
    assert infojax.Interplay._fields == (
        "entropy_features",
        "entropy_head",
        "joint_entropy",
        "mutual_information",
        "mir",
        "hdr",
        "mean_energy",
        "num_samples",
        "num_classes_present",
    )
    assert issubclass(infojax.NeuralCollapse, tuple)
    for method in ("init", "update", "merge"):
        assert inspect.getdoc(getattr(infojax.ClassStats, method))


@pytest.mark.parametrize("name", infojax.__all__)
def test_everything_exported_is_documented(name):
    value = getattr(infojax, name)
    if callable(value):
        assert value.__module__.startswith("infojax.")
        assert inspect.getdoc(value)


@pytest.mark.parametrize(
    "module",
    [m for m, path in MODULES.items() if ">>> " in path.read_text()],
)
def test_docstring_examples(module):
    loaded = importlib.import_module(f"infojax.{module}".rstrip("."))
    failures, tried = doctest.testmod(loaded, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 0 and failures == 0
