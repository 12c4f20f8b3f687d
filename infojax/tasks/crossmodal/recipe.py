"""CoOp's recipe: what a config holds, templates, epochs by shots; and which values are refused."""

from ml_collections import ConfigDict

from infojax.objectives import flat_settings
from infojax.objectives.crossmodal import FORMS, POSITIONS, TEXTS, PromptLearning, ZeroShot
from infojax.tasks.build import check_choice, optimizer_settings, reading
from infojax.tasks.config import ConfigError, training

METHODS = ("coop", "coop_cma", "cocoop", "cocoop_cma", "zero_shot", "features")
UNTRAINED = ("zero_shot", "features")
CLASSES = ("all", "base_to_novel")
VIEWS = ("plain", "weak", "crop")
# CoOp's hand-written templates of the eleven sets, for data.template=NAME; any other set has the first.
TEMPLATES = {
    "imagenet": "a photo of a {}.", "caltech101": "a photo of a {}.", "stanford_cars": "a photo of a {}.",
    "sun397": "a photo of a {}.", "oxford_pets": "a photo of a {}, a type of pet.",
    "oxford_flowers": "a photo of a {}, a type of flower.", "food101": "a photo of {}, a type of food.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.", "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.", "ucf101": "a photo of a person doing {}.",
}  # fmt: skip
# The seven of OpenAI's eighty templates that do as well together, which CoOp's ensemble adds to the set's own.
ENSEMBLE = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip


def defaults(name: str, chosen: ConfigDict) -> ConfigDict:
    """CoOp's recipe, without what presets decide."""
    config, method, shots = training(name, chosen), chosen.get("method", "coop_cma"), chosen.get("shots", "16")
    config.task, config.method, config.shots, config.weights = "crossmodal", method, shots, ""
    config.data = dict(
        name=chosen.data, dir="", options=dict(),
        few_shot_seed=chosen.get("few_shot_seed", 1),  # of the first run's shots; the others' follow: 1, 2, 3 in CoOp
        names="",  # a file of class names, one per line in the order of the labels
        template=TEMPLATES.get(chosen.data, TEMPLATES["imagenet"]),  # of zero-shot CLIP; or a key of TEMPLATES
        ensemble=False,  # zero-shot CLIP: the mean with seven further templates
        classes="all",  # or "base_to_novel": half of them to learn from, the others to be told apart with the prompt
        **reading(),  # of the shots as pictures, where views of them are drawn
    )  # fmt: skip
    # The activation is "gelu" for most of open_clip's own models.
    config.model = dict(name="clip", dtype="float32", options=dict(), activation="quick_gelu")
    # Small towers, where no weights are given.
    config.towers = dict(
        width=64, layers=3, head_width=32, patch=4, context=77, steps=300, batch_size=128, lr=1e-3, seed=0
    )
    conditional = method.startswith("cocoop")
    config.prompt = dict(
        tokens=4 if conditional else 16,
        words="a photo of a" if conditional else "",  # to begin with; their number is that of the tokens
        position="end",
        class_specific=False,
        remat=False,  # compute each block of the text tower again in the backward pass: less memory, more time
    )
    config.objective = _objective(method)
    # As Dassl's: all parameters have weight decay, the biases of CoCoOp's meta-network too.
    config.optimizer = optimizer_settings(
        "sgd", lr=0.002, weight_decay=5e-4, schedule="coop", nesterov=False, decayed="all"
    )
    several = len(shots_of(shots)) > 1
    if conditional or not several:  # else each number of shots has its own
        config.epochs = 10.0 if conditional else float(epochs_of(shots_of(shots)[0], chosen.data))
    return config


def _objective(method):
    if method in UNTRAINED:
        return flat_settings(ZeroShot())
    aligned, conditional = method.endswith("cma"), method.startswith("cocoop")
    settings = flat_settings(PromptLearning(alignment="released" if aligned else "off", weight=0.5 * aligned))
    for derived in ("conditional", "cached"):
        del settings[derived]
    settings["batch_size"] = 1 if conditional else 32
    return settings


def shots_of(text: str) -> tuple[int, ...]:
    """The numbers in "1+2+4+8+16".

    Raises:
      ConfigError: one is none, is 0 or comes twice.
    """
    parts = str(text).split("+")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 10**6 for part in parts):
        raise ConfigError(f"shots must be a whole number from 1 on, or several as 1+2+4+8+16; got {text!r}")
    found = tuple(map(int, parts))
    if len(set(found)) < len(found):
        raise ConfigError(f"shots has a number twice: {text}")
    return found


def epochs_of(shots: int, data: str = "") -> int:
    """CoOp's: 50 for one shot and for ImageNet, 100 for 2 and 4, 200 for more."""
    if "imagenet" in data or shots == 1:
        return 50
    return 100 if shots <= 4 else 200


def with_shots(config: ConfigDict, shots: int) -> ConfigDict:
    """The config of one of several numbers of shots, with its epochs."""
    found = ConfigDict(config.to_dict())
    found.shots = found.chosen.shots = str(shots)
    if found.steps is None and found.epochs is None:
        found.epochs = float(epochs_of(shots, config.data.name))
    return found


def template_of(config: ConfigDict) -> str:
    """data.template, or the one that it names.

    Raises:
      ConfigError: no place for the name of the class.
    """
    template = TEMPLATES.get(config.data.template, config.data.template)
    if template.count("{}") != 1 or "{" in template.replace("{}", ""):
        raise ConfigError(
            f"data.template must have one {{}} for the class, or be one of {', '.join(TEMPLATES)}; got {template!r}"
        )
    return template


def templates_of(config: ConfigDict) -> tuple[str, ...]:
    """Those of zero-shot CLIP, the set's own at the end; CoOp's ensemble for ImageNet leaves that out."""
    if config.data.ensemble and config.data.name == "imagenet":
        return ENSEMBLE
    return (*(ENSEMBLE if config.data.ensemble else ()), template_of(config))


def check(config: ConfigDict) -> None:
    """Refuses values that are not known or do not go together."""
    for path, values in {
        "method": METHODS, "data.classes": CLASSES, "prompt.position": POSITIONS,
        "model.activation": ("quick_gelu", "gelu"),
    }.items():  # fmt: skip
        check_choice(config, path, values)
    shots_of(config.shots)
    template_of(config)
    if config.method not in UNTRAINED:
        _check_learning(config)
    if config.prompt.tokens < 1:
        raise ConfigError(f"prompt.tokens must be at least 1, got {config.prompt.tokens}")
    if config.prompt.class_specific:
        for other, wrong in (("the classes base_to_novel", config.data.classes == "base_to_novel"),
                             (f"the method {config.method}", config.method.startswith("cocoop"))):  # fmt: skip
            if wrong:
                raise ConfigError(f"prompt.class_specific has tokens of each class's own, which {other} cannot use")
    if config.data.few_shot_seed < 0:
        raise ConfigError(f"data.few_shot_seed must be at least 0, got {config.data.few_shot_seed}")


def _check_learning(config):
    """The part of `check` that zero-shot CLIP has no keys for."""
    objective = config.objective
    for name, values in {"alignment": ("off", *FORMS), "count": TEXTS, "transform": VIEWS}.items():
        check_choice(config, f"objective.{name}", values)
    swept = config.sweep["values"] if config.sweep.name == "weight" else ()
    if objective.alignment == "off" and any((objective.weight, *swept)):
        raise ConfigError("objective.weight is that of the alignment, which is off; choose coop_cma or cocoop_cma")
    for weight in (objective.weight, *swept):
        if not 0 <= weight <= 1:
            raise ConfigError(f"objective.weight must be from 0 to 1, got {weight}")
    if objective.per_class and objective.transform != "plain":
        raise ConfigError("objective.per_class takes the transform plain; augmented views are drawn sample by sample")
    if config.steps is not None and config.epochs is not None:
        raise ConfigError(f"give either steps or epochs; steps is {config.steps}, epochs is {config.epochs}")
