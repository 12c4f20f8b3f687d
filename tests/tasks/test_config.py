"""The grammar of config strings, and flags that contradict them."""

import importlib.util
from pathlib import Path

import pytest

from infojax.tasks.config import ConfigError, check_choices, check_numbers, choices

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def get_config(name, string=""):
    path = next(path for path in CONFIGS if path.stem == name)
    spec = importlib.util.spec_from_file_location(f"config_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(string)


KNOWN = dict(data="digits", term=("off", "mi"), seeds=1)


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("", dict(preset="tiny", data="digits", term="off", seeds=1)),
        (None, dict(preset="tiny", data="digits", term="off", seeds=1)),
        ("paper", dict(preset="paper", data="digits", term="off", seeds=1)),
        ("small,data=tfds:cifar10,seeds=3", dict(preset="small", data="tfds:cifar10", term="off", seeds=3)),
        ("term=mi", dict(preset="tiny", data="digits", term="mi", seeds=1)),
    ],
)
def test_grammar(string, expected):
    assert choices(string, **KNOWN).to_dict() == expected


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("smal", "preset cannot be 'smal'; did you mean small"),
        ("tiny,dta=digits", "no choice 'dta'; did you mean data"),
        ("tiny,digits", "'digits' is not key=value"),
        ("term=mo", "term cannot be 'mo'"),
        ("seeds=two", "seeds must be a whole number from 1 on, got 'two'"),
        ("seeds=0", "seeds must be a whole number"),
    ],
)
def test_bad_strings(string, message):
    with pytest.raises(ConfigError, match=message):
        choices(string, **KNOWN)


def test_a_flag_may_not_contradict_the_string():
    config = get_config("interplay", "tiny,data=digits")
    check_choices(config)
    config.data.name = "cifar10"
    with pytest.raises(ConfigError, match=r"data.name is 'cifar10'.*FILE.py:tiny,data=cifar10"):
        check_choices(config)


@pytest.mark.parametrize(
    ("path", "value"), [("log.every", -1), ("evaluate.train_samples", 0), ("seeds", 0), ("steps", 0)]
)
def test_numbers_out_of_range(path, value):
    config = get_config("quickstart")
    config.update_from_flattened_dict({path: value})
    with pytest.raises(ConfigError, match=f"{path} must be at least .*, got {value}"):
        check_numbers(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_builds(path):
    """And every config has a card."""
    for preset in ("tiny", "small", "paper"):
        try:
            config = get_config(path.stem, preset)
        except ConfigError as error:
            assert "cannot be" in str(error)  # a config need not have every preset
            continue
        check_choices(config)
        check_numbers(config)
        assert config.name == path.stem and config.preset == preset
    assert f"--config=configs/{path.stem}.py" in path.read_text()


def test_what_the_presets_are():
    paper = get_config("interplay", "paper,data=cifar100")
    assert paper.model.name == "wrn_28_8" and paper.steps == 2**20 and paper.optimizer.lr == 0.03
    assert paper.objective.ema_decay == 0.999 and paper.objective.batch_size == 64
    assert get_config("interplay", "paper,data=cifar10").model.name == "wrn_28_2"
    assert get_config("regularized", "tiny,term=hd").objective.term == "hd"
    assert get_config("regularized", "tiny,term=off").objective.strength == 0
