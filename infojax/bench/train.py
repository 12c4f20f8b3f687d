"""The training loop: images/s, and the cost of the information terms, of measuring, and of all else around the step."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from infojax.objectives import Seeds, init_state, with_settings
from infojax.tasks import grokking
from infojax.tasks.build import classification, prepare, torchssl
from infojax.tasks.build.study import Study
from infojax.tasks.config import choices
from infojax.tasks.train import train
from infojax.train.runlog import read_rows
from infojax.train.step import make_step

RECIPE: dict[str, Any] = dict(lr=0.03, weight_decay=5e-4, batch_size=64, schedule="cosine_7_16")


def config_of(quick: bool, term: str = "off") -> Any:
    """WRN-28-2 on synthetic pictures of 32 x 32 x 3, batch 64, with flips and crops."""
    known = dict(data="synthetic", model="wide_resnet" if quick else "wrn_28_2", term=(term,))
    config = torchssl("bench", choices("small", **known), **RECIPE, epochs=1.0)
    config.objective.strength = 0.1
    config.evaluate.train_samples = config.evaluate.test_samples = 128 if quick else 512
    if quick:
        config.model.options = dict(depth=10, width=1)
    return config


def study(quick: bool, term: str = "off") -> Study:
    """The study of `config_of`."""
    return classification(config_of(quick, term))


def steps(quick: bool) -> Iterator[dict[str, Any]]:
    """Seconds of a step with each term, measured alternately."""
    runs: dict[str, Any] = {}
    taken: dict[str, list[float]] = {}
    for term in ("off", "mi", "hd"):
        one = study(quick, term)
        task = with_settings(one.objective, dict(term=term, strength=0.1))
        step = make_step(one.ctx, one.transforms).compiled()
        state, _ = step(task, init_state(task, Seeds(), one.ctx), {"data": one.data}, Seeds())
        runs[term], taken[term] = (step, task, jax.block_until_ready(state), one), []
    for _ in range(3 if quick else 8):
        for term, (step, task, state, one) in runs.items():
            begun = time.perf_counter()
            state, _ = step(task, state, {"data": one.data}, Seeds())
            jax.block_until_ready(state)
            taken[term].append(time.perf_counter() - begun)
            runs[term] = (step, task, state, one)
    best = {term: min(found) for term, found in taken.items()}
    batch = runs["off"][1].batch_size
    for term, seconds in best.items():
        row = {"what": f"step, term {term}", "images_per_s": batch / seconds, "seconds": seconds}
        yield row | ({} if term == "off" else {"over_plain": seconds / best["off"] - 1})


def evaluation(quick: bool) -> Iterator[dict[str, Any]]:
    """Seconds of one evaluation of 512 train and 512 test samples, raw and averaged weights, all measures."""
    config = config_of(quick)
    one = prepare(classification(config), config)
    models = one.first_models()
    runs = [evaluator.run for evaluator in one.study.evaluators(one.tools(config.evaluate), lambda step: True)]
    images = 2 * sum(dict(run(models))["n"] for run in runs)  # two sets of weights; this first call also compiles
    begun = time.perf_counter()
    for run in runs:
        dict(run(models))
    seconds = time.perf_counter() - begun
    yield {"what": "evaluation, all measures", "images_per_s": images / seconds, "seconds": seconds}


def around(quick: bool) -> Iterator[dict[str, Any]]:
    """Share of a run outside its steps: WRN-10-1 on the digits, with evaluations and checkpoints as in the preset."""
    chosen = choices("tiny", data="digits", model="wide_resnet", seeds=1)
    config = torchssl("bench", chosen, **RECIPE, epochs=2.0 if quick else 60.0)
    config.model.options = dict(depth=10, width=1, norm_decay=0.9)
    config.report.draw = False
    with tempfile.TemporaryDirectory() as folder:
        train(classification(config), config, folder, say=lambda *_: None)
        rows = read_rows(folder)
    timing = {key: value for row in rows if row["kind"] == "timing" for key, value in row.items()}
    parts = {key: timing.get(f"{key}_seconds", 0.0) for key in ("evaluate", "checkpoint", "rows", "steps")}
    total = sum(parts.values())
    shares = {f"{key}_share": value / total for key, value in parts.items() if key != "steps"}
    yield {"what": "run of the digits, after first calls", "seconds": total} | shares


def together(quick: bool) -> Iterator[dict[str, Any]]:
    """Three seeds in one program compared with three commands, including compilation."""
    config = Path(__file__).parents[2] / "configs" / "interplay.py"
    if not config.exists():  # installed without a checkout
        return
    epochs, taken = 1 if quick else 10, {}
    for name, strings in {"one": ["seeds=3"], "three": ["seeds=1"] * 3}.items():
        begun = time.perf_counter()
        for seed, string in enumerate(strings):
            with tempfile.TemporaryDirectory() as folder:
                flags = [f"--config.epochs={epochs}", f"--config.seed={seed}", "--config.report.draw=False"]
                command = [sys.executable, "-m", "infojax.main", f"--config={config}:tiny,{string}", *flags]
                subprocess.run([*command, f"--workdir={folder}"], check=True, capture_output=True)
        taken[name] = time.perf_counter() - begun
    yield {"what": "3 seeds, one command", "seconds": taken["one"], "over_three": taken["one"] / taken["three"]}
    yield {"what": "3 seeds, three commands", "seconds": taken["three"]}


def grokking_seeds(quick: bool) -> Iterator[dict[str, Any]]:
    """One transformer of the grokking preset compared with four trained together, with compilation, no evaluations."""
    taken, how = {}, {}
    for count in (1, 4):
        config = grokking.defaults("bench", choices("tiny", operation="add", seeds=count))
        config.data.options.update(p=43, train_fraction=0.4)
        config.model.options.update(dim=64, width=256)
        config.steps = 50 if quick else 1000
        config.evaluate.points = config.evaluate.accuracy_every = config.checkpoint.every = 0
        config.report.draw = False
        jax.clear_caches()
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train(grokking.study(config), config, folder, say=lambda *_: None)
            how[count] = json.loads((Path(folder) / "config.json").read_text())["how"]
        taken[count] = time.perf_counter() - begun
    for count, seconds in taken.items():
        row = {"what": f"grokking, {config.steps} steps, {count} seeds by {how[count]}", "seconds": seconds}
        yield row | ({"over_one": seconds / taken[1]} if count > 1 else {})


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of all these benchmarks."""
    return [row for part in (steps, evaluation, around, together, grokking_seeds) for row in part(quick)]
