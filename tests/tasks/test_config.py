"""The grammar of config strings, and flags that contradict them."""

import importlib.util
import math
import os
from pathlib import Path

import pytest
from ml_collections import FrozenConfigDict

from infojax.objectives.semisup import METHODS
from infojax.tasks.build import optimizer_settings
from infojax.tasks.config import ConfigError, buildable, check_choices, choices
from infojax.tasks.flags import parse
from infojax.tasks.ranges import LISTS, OPTIONS, RANGES, check_ranges, leaves

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
        ("paper", dict(preset="paper", data="cifar10", term="off", seeds=1)),
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
        ("seeds=\u00b2", "seeds must be a whole number"),
        ("seeds=1e3", "seeds must be a whole number"),
        ("seeds=2,seeds=3", "gives seeds twice"),
        ("data=", "data has no value"),
        ("tiny,,seeds=2", "has an empty part"),
        ("paper,data=digits", "paper is for the papers' data"),
        ("data=a\nb", "characters that cannot be printed"),
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


def built():
    """(name, config) of all presets of all configs."""
    for path in CONFIGS:
        for preset in ("tiny", "small", "paper", *(f"tiny,method={name}" for name in METHODS)):
            if "method" in preset and path.stem != "semisup":
                continue
            try:
                yield f"{path.stem}:{preset}", get_config(path.stem, preset)
            except ConfigError as error:
                assert "cannot be" in str(error)  # a config need not have every preset


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_an_optimiser_that_a_flag_names_has_its_own_keys(name):
    flags = [f"--config.optimizer.name={name}"] + ["--config.optimizer.b2=0.95"] * (name == "adamw")
    config = parse(["main", f"--config={CONFIGS[0].parent}/quickstart.py", *flags])[0].optimizer.to_dict()
    own = {
        "sgd": {"momentum", "nesterov", "decayed"},
        "adamw": {"b1", "b2", "eps", "decayed", "layer_decay"},
        "lars": {"momentum", "trust"},
    }[name]
    assert config.keys() == {"name", "lr", "weight_decay", "clip", "schedule", "warmup_steps"} | own
    assert config.get("b2", 0.95) == 0.95


def test_every_number_has_a_range():
    for name, config in built():
        for path, value in leaves(config):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            numbers = isinstance(value, tuple) and value and not isinstance(value[0], str) and path != "sweep.values"
            if (number or numbers) and path.split(".")[0] != "chosen":
                assert path in RANGES, (name, path)
    assert OPTIONS == ("data.options", "model.options")


@pytest.mark.parametrize("path", RANGES)
def test_values_outside_of_each_range(path):
    allowed = RANGES[path]
    below = allowed.least if allowed.above else allowed.least - 1
    above = allowed.most if allowed.below else allowed.most + 1
    wrong = [math.nan, math.inf, -math.inf, True, "many", 10**400, *(x for x in (below, above) if math.isfinite(x))]
    assert not any(allowed.holds(value) for value in wrong + ([1.5] if allowed.whole else []))
    config = next((config for _, config in built() if path in dict(leaves(config))), None)
    if config is None:  # of an optimiser that no config takes
        config = get_config("quickstart", "")
        config.optimizer = optimizer_settings("lars", lr=0.1, weight_decay=0.0)
    for value in (below if math.isfinite(below) else math.nan,):
        bad = config.copy_and_resolve_references()
        section, _, name = path.rpartition(".")
        with (bad[section] if section else bad).ignore_type():
            (bad[section] if section else bad)[name] = (value,) if path in LISTS else value
        with pytest.raises(ConfigError, match=f"config.{path} must be "):
            check_ranges(bad)


FILE = f"--config={CONFIGS[0].parent}/interplay.py:tiny,data=synthetic,model=mlp"
REFUSED = {
    "optimizer.clip=-1": "clip must be a number of at least 0, got -1.0",
    "objective.temperature=-1": "temperature must be a positive number, got -1.0",
    "data.train_samples=-1": "train_samples must be a whole number of at least 0",
    "data.options.size=0": "size must be a whole number",
    "data.options.sise=8": "no key config.data.options.sise; did you mean size",
    "model.options.dropout=0.1": "no key config.model.options.dropout; there is",
    "optimizer.learning_rate=1": "no key config.optimizer.learning_rate; did you mean lr",
    "objective.options.term=mi": "no key config.objective.options.term; did you mean config.objective.term",
    "optimiser.lr=1": "no key config.optimiser.lr; did you mean config.optimizer.lr",
    "nonsense=1": "no key config.nonsense; there is",
    "optimizer.lr.x=1": "config.optimizer.lr is a value, not a section",
    "checkpoint.best=nonsense": "checkpoint.best must be a split and a quantity",
    "checkpoint.best=test acuracy": "no quantity 'acuracy' is measured; did you mean accuracy",
    "optimizer.schedule=cosin": "config.optimizer.schedule cannot be 'cosin'; did you mean cosine",
    "objective.term=x": "config.objective.term cannot be 'x'; there is off",
    "evaluate.convention=these": "config.evaluate.convention cannot be 'these'; did you mean thesis",
    "objective.log_softmax=": "config.objective.log_softmax cannot be ''",
    "model.options.widths=(8, 10000000)": "widths of mlp must be whole numbers of at most 1,048,576, got (8, 10000000)",
    "task=pruning": "config.sparsities is missing; the task pruning needs it",
    "task=connectivity": "config.path.init is missing; the task connectivity needs it",
    "task=temperature": "config.tsne_seed is missing; the task temperature needs it",
    "task=grokking": "config.evaluate.accuracy_every is missing; the task grokking needs it",
    "name=..": "config.name must be a word",
    "checkpoint.best=test limit_accuracy": "no quantity 'limit_accuracy' is measured",
    "checkpoint.best=test mir_error_ema": "no quantity 'mir_error_ema' is measured; did you mean mir_error",
    "checkpoint.best=test per_class": "no quantity 'per_class' is measured",
    "sweep.name=temprature": "config.sweep.name cannot be 'temprature'; did you mean temperature",
    "sweep.name=batch_size": "config.sweep.name cannot be 'batch_size'; there is",
    "seeds=0": "config.seeds must be a whole number of at least 1",
    "optimizer.lr=-1": "lr must be a positive number, got -1.0",
    "optimizer.lr=nan": "lr must be a positive number, got nan",
    "optimizer.momentum=2": "momentum must be",
    "optimizer.weight_decay=-1": "weight_decay must be",
    "model.options.norm_decay=2": "norm_decay",
    "steps=1e20": "config.steps must be a whole number, got '1e20'",
    "optimizer.nesterov=2": "config.optimizer.nesterov must be true or false, got '2'",
    "log=1": "config.log must be a section; set its keys, as --config.log.every=VALUE, got '1'",
    "name=../x": "config.name must be a word",
    "steps=100000000000000000000": "steps must be a whole number of at least 1 and at most 2,147,483,647",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_refused_flags(flag):
    config = FILE.replace("mlp", "wide_resnet") if "norm_decay" in flag else FILE
    with pytest.raises(ConfigError) as error:
        parse(["main", config, f"--config.{flag}"])
    assert REFUSED[flag] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-1.0", "0.0"])
def test_a_sweep_has_the_range_of_its_key(value):
    for name in ("temperature", "lr"):
        with pytest.raises(ConfigError, match=f"config.sweep.values, of {name}, must be a positive number"):
            parse(["main", FILE, f"--config.sweep.name={name}", f"--config.sweep.values={value}"])


def test_keys_that_a_config_file_took_away():
    config = get_config("interplay")
    config.log = None
    with pytest.raises(ConfigError, match="config.log.every is missing"):
        check_ranges(config)
    config = get_config("interplay")
    config.optimizer.lr = None
    with pytest.raises(ConfigError, match="config.optimizer.lr must be a positive number, got None"):
        check_ranges(config)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("optimizer.lr", (0.1, 0.2), r"config.optimizer.lr must be a positive number, got \(0.1, 0.2\)"),
        ("optimizer.lr", [], r"config.optimizer.lr must be a positive number, got \[\]"),
        ("sweep.values", 3.0, "config.sweep.values must be a tuple of numbers, got 3.0"),
        ("checkpoint.best", 3, "config.checkpoint.best must be text, got 3"),
        ("name", None, "config.name must be text, got None"),
        ("seed", 10**400, r"config.seed must be a whole number.*got 10+\.\.\. \(401 characters\)"),
        ("how", ["vmap"], r"config.how cannot be \['vmap'\]; did you mean vmap|there is"),
    ],
)
def test_values_of_another_type_in_a_config_file(path, value, says):
    config = get_config("interplay")
    section, _, name = path.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[name] = value
    with pytest.raises(ConfigError, match=says):
        check_ranges(config)


@pytest.mark.parametrize("path", ["optimizer", "optimizer.lr", "data", "model", "objective.batch_size", "chosen"])
def test_keys_that_a_config_file_lacks(path, tmp_path):
    lines = (CONFIGS[0].parent / "interplay.py").read_text().replace("    return ", "    config = ")
    (tmp_path / "mine.py").write_text(f"{lines}    del config.{path}\n    return config\n")
    with pytest.raises(
        ConfigError, match=f"config.{path}[a-z.]* is missing; (the task supervised needs it|it is what)"
    ):
        parse(["main", f"--config={tmp_path}/mine.py"])


@pytest.mark.parametrize("section", ["data", "model"])
def test_options_that_a_config_file_lacks(section):
    for options in (None, 3):
        config = get_config("interplay")
        with config.ignore_type():
            config[section].options = options
        with pytest.raises(ConfigError, match=f"config.{section}.options must be a dict"):
            check_ranges(config)
    config = get_config("interplay")
    del config[section]["options"]
    with pytest.raises(ConfigError, match=f"config.{section}.options must be a dict"):
        check_ranges(config)


def test_a_choice_is_no_near_key():
    """`chosen` remembers the config string; it is not to be set."""
    with pytest.raises(ConfigError, match="no key config.model.options.variant; there is"):
        parse(["main", f"--config={CONFIGS[0].parent}/regularized.py:model=mlp", "--config.model.options.variant=x"])
    with pytest.raises(ConfigError) as error:
        parse(["main", f"--config={CONFIGS[0].parent}/regularized.py:model=mlp", "--config.objective.model=x"])
    assert "chosen" not in str(error.value)


def test_a_command_without_a_config():
    for words, says in (
        ([], "give --config="), (["--cofnig=x.py"], "unknown flag --cofnig; give --config="),
        (["configs/interplay.py"], "cannot read 'configs/interplay.py'; give --config="),
        (["--workdir=x"], "^give --config="),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            parse(["main", *words])


def test_what_may_choose_the_best_checkpoint():
    for quantity in ("accuracy", "accuracy_ema", "mir", "hdr_centered", "limit_mir", "mir_centered_error", "nc1"):
        config, *_ = parse(["main", FILE, f"--config.checkpoint.best=test {quantity}"])
        assert config.checkpoint.best == f"test {quantity}"


def flags(*words, string="tiny,model=mlp"):
    path = next(path for path in CONFIGS if path.stem == "interplay")
    return parse(["main", f"--config={path}:{string}", *words])[0]


def test_evaluations_are_spaced_in_one_way():
    assert (flags("--config.evaluate.every=5").evaluate.points, flags().evaluate.points) == (0, 16)
    found = flags("--config.evaluate.points=4", string="paper,model=wide_resnet").evaluate  # whose preset has `every`
    assert (found.every, found.points) == (0, 4)
    with pytest.raises(ConfigError, match=r"evaluate.every \(5\) and config.evaluate.points \(3\) both say when"):
        flags("--config.evaluate.every=5", "--config.evaluate.points=3")
    assert flags("--config.evaluate.every=0", "--config.evaluate.points=3").evaluate.points == 3
    found = flags("--config.evaluate.every=5", "--config.evaluate.late_every=2").evaluate
    assert (found.every, found.late_every, found.late_from) == (5, 2, 0.8)
    with pytest.raises(ConfigError, match=r"late_every is 2, but config.evaluate.every is 0"):
        flags("--config.evaluate.late_every=2")


def test_flags_that_would_change_nothing_or_the_wrong_thing(capsys):
    with pytest.raises(ConfigError, match="optimizer.b1 is no key of sgd, which has momentum, nesterov, decayed"):
        flags("--config.optimizer.b1=0.5")
    assert flags("--config.optimizer.name=adamw", "--config.optimizer.b1=0.5").optimizer.b1 == 0.5
    with pytest.raises(ConfigError, match="config.chosen.preset: is what the config string chose; write it there"):
        flags("--config.chosen.preset=small")
    with pytest.raises(ConfigError, match="holds a NUL"):
        flags("--workdir=a\0b")
    flags("--config.checkpoint.best=test loss")
    assert "keeps the checkpoint of the largest test loss, which is the worst" in capsys.readouterr().err


def test_a_flag_given_twice_says_which_one_counts(capsys):
    assert flags("--config.steps=10", "--config.steps", "20").steps == 20
    assert capsys.readouterr().err == "infojax.main: --config.steps is given 2 times; the last one counts\n"
    values = ["--config.sweep.name=strength", "--config.sweep.values=1.0", "--config.sweep.values=2.0"]
    assert flags(*values).sweep["values"] == (1.0, 2.0)  # each flag adds to the tuple
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("string", "flag", "advice"),
    [
        ("tiny,model=mlp", "--config.data.name=cifar10", ":tiny,model=mlp,data=cifar10"),
        ("data=synthetic,model=mlp", "--config.data.name=cifar10", ":data=cifar10,model=mlp"),
        ("tiny,data=digits", "--config.preset=small", ":small,data=digits"),
        ("", "--config.seeds=3", ":seeds=3"),
    ],
)
def test_the_advice_is_a_command_that_works(string, flag, advice):
    """What was chosen besides stays."""
    with pytest.raises(ConfigError, match="write it there: --config=.*") as caught:
        flags(flag, string=string)
    found = str(caught.value).partition("--config=")[2]
    assert found.endswith(f"interplay.py{advice}")
    flags(string=found.partition(":")[2])


def test_options_are_flags():
    flags = ["size=16", "noise=0.5"], ["widths=(8, 4)", "norm=True"]
    words = [
        f"--config.{of}.options.{flag}" for of, given in zip(("data", "model"), flags, strict=True) for flag in given
    ]
    config, *_ = parse(["main", FILE, *words])
    assert config.data.options.to_dict() == {"size": 16, "noise": 0.5}
    assert config.model.options.to_dict() == {"widths": (8, 4), "norm": True}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(string=None):\n    return missing\n", "mine.py, line 2: name 'missing' is not defined"),
        ("def get_config(:\n", "line 1: "),
        ("x = 1\n", "has no function get_config"),
        ("def get_config(string=None):\n    return {}\n", "returned dict, expected an ml_collections.ConfigDict"),
        ("import not_there_at_all\n", "No module named 'not_there_at_all'"),
        ("raise SystemExit(3)\n", "mine.py, line 1: SystemExit: 3"),
        ("raise KeyError('width')\n", "mine.py, line 1: KeyError: width"),
        ("class Own(BaseException): pass\nraise Own('mine')\n", "mine.py, line 2: mine"),
        ("from ml_collections import ConfigDict\ndef get_config(s=None):\n    return ConfigDict()\n", "no task None"),
        ("\0", "null byte"),
    ],
)
def test_files_that_are_no_config(text, says, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError) as error:
        parse(["main", f"--config={tmp_path}/mine.py"])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_paths_that_are_no_config_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "words.txt").write_text("")
    for name, says in (
        ("pipe.py", "not a regular file"), ("words.txt", "not a Python file"), ("", "is a folder; .*there is pipe.py"),
        ("pip.py", "no such file; did you mean pipe.py"), ("x" * 300 + ".py", "too long"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            parse(["main", f"--config={tmp_path}/{name}"])


def test_run_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, says in (
        ("", "--workdir is empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file/x", "is a file"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse(["main", FILE, f"--workdir={folder}"])


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
        check_ranges(config)
        assert config.name == path.stem and config.preset == preset
    assert f"--config=configs/{path.stem}.py" in path.read_text()


def test_what_the_presets_are():
    paper = get_config("interplay", "paper,data=cifar100")
    assert paper.model.name == "wrn_28_8" and paper.steps == 2**20 and paper.optimizer.lr == 0.03
    assert paper.objective.ema_decay == 0.999 and paper.objective.batch_size == 64
    assert get_config("interplay", "paper,data=cifar10").model.name == "wrn_28_2"
    assert get_config("regularized", "tiny,term=hd").objective.term == "hd"
    assert get_config("regularized", "tiny,term=off").objective.strength == 0


def test_a_config_that_lacks_a_key_is_told_by_its_name():
    expected = pytest.raises(ConfigError, match="the run of this config cannot be built: the key width is not there")
    with expected, buildable("the run"):
        _ = FrozenConfigDict({"depth": 3}).width
