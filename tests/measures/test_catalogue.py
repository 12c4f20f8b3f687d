"""The catalogue of quantities: whatever is shown anywhere has its entry, and the entries agree among themselves."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from infojax import analyze
from infojax.measures import catalogue
from infojax.measures.catalogue import CATALOGUE, GROUPS, LABELLED, measure_of, shown_in


def test_no_name_and_no_label_has_two_entries():
    calls = ast.walk(ast.parse(Path(catalogue.__file__).read_text()))
    calls = [node for node in calls if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Measure"]
    names = Counter(ast.literal_eval(call.args[0]) for call in calls if isinstance(call.args[0], ast.Constant))
    assert names == dict.fromkeys(CATALOGUE, 1)
    assert len({CATALOGUE[name].label for name in LABELLED}) == len(LABELLED)


@pytest.mark.parametrize("place", ["compared", "summary", "brief"])
def test_places_are_counted_from_one(place):
    shown = shown_in(place)
    assert [getattr(CATALOGUE[name], place) for name in shown] == list(range(1, len(shown) + 1))
    wanted = "column" if place == "compared" else "label"
    assert all(getattr(CATALOGUE[name], wanted) for name in shown)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_agrees_with_itself(name):
    measure = CATALOGUE[name]
    assert measure.group in GROUPS and 0 <= measure.colour <= 5
    assert measure.label or measure.convention
    assert set(measure.needs) <= {"features", "labels", "head", "prompts"}
    assert bool(measure.needs) == bool(measure.convention)
    assert measure.unit == "nats" or not measure.convention.endswith("nats")
    assert measure.unit not in ("bits", "%") or f"({measure.unit})" in measure.label
    if measure.of_a_simplex:
        assert measure.limit != ""


def test_unknown_quantities_and_those_of_layers_have_labels():
    assert measure_of("other").label == "other" and measure_of("other").limit == ""
    assert measure_of("nc1@layer2").label == "NC1 of layer2" and measure_of("nc1@layer2").limit == 0.0
    assert measure_of("rankme").label == "rankme"


def test_a_report_measures_what_the_catalogue_says_it_needs():
    rng = np.random.default_rng(0)
    z, labels, head = rng.normal(size=(40, 14)), np.arange(40) % 4, rng.normal(size=(4, 14))
    for given, report in (
        ({"features"}, analyze(z)),
        ({"features", "labels", "head"}, analyze(z, labels, head)),
    ):
        wanted = [name for name, m in CATALOGUE.items() if m.convention and set(m.needs) <= given]
        assert list(report.measures) == wanted
