"""The command: what it leaves, how it continues, and how it says what is wrong."""

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import infojax.main
from infojax.data import DATASETS, open_dataset
from infojax.evaluate import EVALUATORS
from infojax.main import main
from infojax.models import MODELS
from infojax.objectives import OBJECTIVES
from infojax.tasks.build import OPTIMIZERS, SCHEDULES
from infojax.tasks.flags import parse
from infojax.train.runlog import RunFolder, read_rows

ROOT = Path(__file__).parents[1]
TINY = f"--config={ROOT}/configs/interplay.py:tiny,model=mlp"
WIDTH = 32
SHORT = ["--config.epochs=2", "--config.evaluate.points=2", "--config.log.every=10", "--config.report.draw=False"]
SHORT += [f"--config.model.options.widths={WIDTH}"]
WIDE = "--config.model.options.widths=512"  # a second layer, of a run that takes its time and its space
ONE_DEVICE = "--config.devices=1"


def test_programs_that_cannot_be_kept_are_told_once(capsys):
    with warnings.catch_warnings(), infojax.main._quiet():
        warnings.simplefilter("always")
        for name in ("jit_a", "jit_b"):
            text = f"Error writing persistent compilation cache entry for {name!r}: OSError: [Errno 28] No space: 'x'"
            warnings.warn(text, stacklevel=1)
        warnings.warn("else", stacklevel=1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "infojax.main: compiled programs cannot be kept for the next command: No space: 'x'"
    assert second == "infojax.main: else"


def rows_of(folder):
    return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(folder) if row["kind"] != "timing"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main([TINY, *SHORT, ONE_DEVICE, "--config.report.draw=True", f"--workdir={folder}"]) == 0
    return folder


def test_what_a_run_leaves(whole):
    rows, config = rows_of(whole), json.loads((whole / "config.json").read_text())
    assert config["steps"] == 45 and config["steps_per_epoch"] == 1442 / 64 and config["num_classes"] == 10
    assert config["objective"]["batch_size"] == 64
    assert json.loads((whole / "status.json").read_text())["state"] == "finished"
    assert json.loads((whole / "env.json").read_text())["versions"]["jax"] == jax.__version__
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [10, 20, 30, 40, 45]
    measured = [(row["step"], row["split"]) for row in rows if row["kind"] == "eval"]
    assert measured == [(step, split) for step in (0, 23, 45) for split in ("train", "test")]
    last = rows[-1]
    assert last["n"] == 355 and last["accuracy"] > 0.5 and last["convention"] == "thesis"
    for name in ("mir", "hdr", "entropy_features", "limit_mir", "mean_energy", "nc1", "nc4", "cdnv", "loss_ema"):
        assert np.isfinite(last[name]), name
    page = (whole / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "interplay" in page
    assert {path.suffix for path in (whole / "figures").iterdir()} == {".png", ".svg", ".csv"}


def test_the_network_is_measured_as_it_is(whole):
    """The last accuracy is that of the parameters in the last checkpoint."""
    from orbax.checkpoint import CheckpointManager, StandardCheckpointHandler

    from infojax.data import channel_moments, transforms
    from infojax.models import MLP

    with CheckpointManager(whole / "checkpoints", item_handlers=StandardCheckpointHandler()) as manager:
        state = manager.restore(45)
    digits = open_dataset()
    test = digits.split("test")
    plain = transforms(*channel_moments(digits.split("train")), flip=False)["plain"]
    params = state["params"] if isinstance(state, dict) else state.params
    logits = MLP(10, (WIDTH,)).apply({"params": params["net"]}, plain(None, test.x), train=False).logits
    accuracy = float(np.mean(np.argmax(logits, -1) == test.labels))
    assert rows_of(whole)[-1]["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_the_same_command_again_does_nothing(whole, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    assert main([TINY, *SHORT, ONE_DEVICE, f"--workdir={whole}"]) == 0
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_folder(whole, capsys):
    assert main([TINY, *SHORT, ONE_DEVICE, "--config.optimizer.lr=0.2", f"--workdir={whole}"]) == 2
    message = capsys.readouterr().err
    assert "holds another run: optimizer.lr was 0.1, is 0.2" in message and message.count("\n") == 1


def test_the_same_losses_on_any_number_of_devices(whole, tmp_path):
    alone = [row["loss"] for row in rows_of(whole) if row["kind"] == "train"]
    for devices in (2, 8):
        folder = tmp_path / str(devices)
        assert main([TINY, *SHORT, f"--config.devices={devices}", f"--workdir={folder}"]) == 0
        found = [row["loss"] for row in rows_of(folder) if row["kind"] == "train"]
        np.testing.assert_allclose(found, alone, rtol=2e-3)
        last, ours = rows_of(folder)[-1], rows_of(whole)[-1]
        assert last["mir"] == pytest.approx(ours["mir"], rel=1e-3)
        assert last["accuracy"] == pytest.approx(ours["accuracy"], abs=0.01)


def test_several_seeds_are_their_runs_alone(whole, tmp_path):
    """Seed by seed the rows of a group are those of runs of their own, up to rounding."""
    assert main([f"{TINY},seeds=2", *SHORT, ONE_DEVICE, f"--workdir={tmp_path}"]) == 0
    rows = rows_of(tmp_path)
    assert {(row["run"], row["seed"]) for row in rows} == {(0, 0), (1, 1)}
    first = [row["loss"] for row in rows if row["kind"] == "train" and row["seed"] == 0]
    np.testing.assert_allclose(first, [row["loss"] for row in rows_of(whole) if row["kind"] == "train"], rtol=1e-3)
    mir = {row["seed"]: row["mir"] for row in rows if row["kind"] == "eval"}
    assert mir[0] == pytest.approx(rows_of(whole)[-1]["mir"], rel=1e-3) and mir[1] != mir[0]


def test_a_sweep(tmp_path, capsys):
    sweep = ["--config.sweep.name=temperature", "--config.sweep.values=1.0", "--config.sweep.values=8.0"]
    assert main([TINY, *SHORT, ONE_DEVICE, *sweep, f"--workdir={tmp_path}"]) == 0
    last = {row["temperature"]: row for row in rows_of(tmp_path) if row["kind"] == "eval"}
    assert set(last) == {1.0, 8.0} and last[1.0]["entropy_features"] != last[8.0]["entropy_features"]


CONFIGS = {"quickstart": "", "regularized": ":tiny,term=hd"}
# interplay: all other tests here; smoke: tests/multihost; the rest: tests/tasks
ELSEWHERE = {"interplay", "smoke", "temperature", "connectivity", "pruning", "grokking"}
ELSEWHERE |= {"compression", "bottleneck", "simplex", "semisup", "selfsup", "probe", "crossmodal", "finetune"}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tiny_preset_of_every_config_runs(name, tmp_path):
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == {*ELSEWHERE, *CONFIGS}
    flags = ["--config.epochs=0.1", "--config.evaluate.points=0", "--config.report.draw=False"]
    config = f"--config={ROOT}/configs/{name}.py{CONFIGS[name]}"
    assert main([config, *flags, ONE_DEVICE, "--config.log.every=1", f"--workdir={tmp_path}"]) == 0
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2] and rows[-1]["loss"] < 4
    assert ("hd" in rows[-1]) == (name == "regularized")


def test_dry_run(tmp_path, capsys):
    assert main([TINY, *SHORT, "--dry_run", f"--workdir={tmp_path}/none"]) == 0
    said = capsys.readouterr().out
    assert f"net: layer1 {WIDTH}, embedding {WIDTH}, logits 10" in said
    assert (
        '"steps_per_epoch": 22.5' in said
        and "8 x 8 x 1" in said
        and "45 steps" in said
        and "2,880 images" in said
        and "FLOPs" in said
    )
    assert not (tmp_path / "none").exists()


def test_more_samples_than_there_are(tmp_path, capsys):
    """All are used, which is reported once for each key."""
    flags = ["--config.data.train_samples=5000", "--config.evaluate.test_samples=400", "--dry_run"]
    assert main([TINY, *flags, f"--workdir={tmp_path}/none"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "config.data.train_samples is 5,000, more than the 1,442 samples that there are: all of them are used" in said
    )
    assert "config.evaluate.test_samples is 400, more than the 355 samples that there are: all of them are used" in said


def test_steps_take_the_place_of_epochs(tmp_path, capsys):
    assert main([TINY, "--config.steps=3", "--dry_run"]) == 0
    assert '"steps": 3' in capsys.readouterr().out


@pytest.mark.parametrize("how", ["dispatch", "vmap"])
def test_a_group_continues_exactly(how, tmp_path):
    """Stopped by its own evaluation count: a shorter first part is cut out by removing what came later."""
    flags = [*SHORT, ONE_DEVICE, f"--config.how={how}", "--config.checkpoint.every=20", "--config.checkpoint.keep=9"]
    assert main([f"{TINY},seeds=2", *flags, f"--workdir={tmp_path}/run"]) == 0
    whole = rows_of(tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        if folder.name != "20":
            shutil.rmtree(folder)
    assert main([f"{TINY},seeds=2", *flags, f"--workdir={tmp_path}/run"]) == 0
    assert rows_of(tmp_path / "run") == whole


def test_several_steps_a_call_are_the_same_steps(whole, tmp_path):
    assert main([TINY, *SHORT, ONE_DEVICE, "--config.steps_per_call=4", f"--workdir={tmp_path}"]) == 0
    for mine, other in zip(rows_of(tmp_path), rows_of(whole), strict=True):
        assert mine.keys() == other.keys() and mine["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_the_best_checkpoint_stays(tmp_path):
    flags = [*SHORT, ONE_DEVICE, "--config.checkpoint.every=1", "--config.checkpoint.keep=1"]
    accuracy = ["--config.checkpoint.best=train loss", "--config.optimizer.lr=0.05"]  # the worst: step 0
    assert main([TINY, *flags, *accuracy, f"--workdir={tmp_path}"]) == 0
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()} == {"0", "45"}


def test_what_was_refused_leaves_the_folder_free(tmp_path):
    assert main([TINY, *SHORT, ONE_DEVICE, "--config.data.pad=9", f"--workdir={tmp_path}/run"]) == 2
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_config_file_says_where(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def get_config(string=None):\n    return undefined_thing\n")
    assert main([f"--config={tmp_path}/mine.py"]) == 2
    assert "mine.py, line 2: name 'undefined_thing' is not defined" in capsys.readouterr().err


# Runs that fail


def gone(folder):
    while folder.exists():  # the lock's heart beats, or a checkpoint is on its way
        shutil.rmtree(folder, ignore_errors=True)


def full(folder):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        (gone, 1, "; once that is fixed, the same command continues"),  # who writes first says which file is gone
        (full, 1, "No space left on device; once that is fixed, the same command continues"),
        (interrupted, 130, "interrupted; the same command continues"),
    ],
)
def test_a_run_that_is_cut_off(what, code, says, tmp_path, capfd, monkeypatch):
    """One line; what clean-up then runs into, as the disk is still full, does not take the place of the cause."""
    folder, row, status = tmp_path / "run", RunFolder.row, RunFolder.status

    def cut(self, kind, step, **values):
        row(self, kind, step, **values)
        if step == 10:
            what(folder)

    def also_full(self, **values):
        if what is full and values["state"] == "stopped":
            raise OSError(errno.ENOSPC, "status")
        status(self, **values)

    monkeypatch.setattr(RunFolder, "row", cut)
    monkeypatch.setattr(RunFolder, "status", also_full)
    assert main([TINY, *SHORT, ONE_DEVICE, f"--workdir={folder}"]) == code
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("step ")]
    assert len(said) == 1 and said[0].startswith("infojax.main: ") and says in said[0]
    assert (folder / "status.json").exists() == (what is not gone)  # nothing suggests that there is a run


def test_training_that_is_not_finite(tmp_path, capfd):
    """Nothing is logged: the evaluation sees it. Its row stays, and LAPACK is not asked."""
    wild = ["--config.optimizer.lr=1e8", "--config.log.every=0"]
    assert main([TINY, *SHORT, *wild, ONE_DEVICE, f"--workdir={tmp_path}"]) == 3
    error = capfd.readouterr().err
    says = "infojax.main: step 23: embedding of train became NaN or Inf; the last good checkpoint is of step 0. Lower "
    assert says + "optimizer.lr (100000000.0)" in error and "DLASCL" not in error and "Traceback" not in error
    assert rows_of(tmp_path)[-1]["not_finite"] == "embedding"


def test_a_group_says_which_run_stopped(tmp_path, capsys):
    sweep = ["--config.sweep.name=lr", "--config.sweep.values=0.1", "--config.sweep.values=1e30"]
    assert main([TINY, *SHORT, ONE_DEVICE, *sweep, f"--workdir={tmp_path}"]) == 0
    assert "the run of lr 1e+30, seed 0 became NaN or Inf after step" in capsys.readouterr().out


def test_sigterm_while_it_compiles(tmp_path):
    """Before the first step nothing has to be saved: one line, at once."""
    command = [sys.executable, "-m", "infojax.main", TINY, *SHORT, ONE_DEVICE, f"--workdir={tmp_path}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        while "compiling the step" not in (line := running.stderr.readline()) and line:
            pass
        running.send_signal(signal.SIGTERM)
        said = [line for line in running.stderr.read().splitlines() if line.startswith("infojax.main")]
    assert running.returncode == 143 and len(said) == 1 and "the same command continues" in said[0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the handlers of a process are read from /proc")
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_ctrl_c_before_the_first_step(tmp_path, seconds):
    """From the moment that the command is there: a library that catches KeyboardInterrupt would go on."""
    command = [sys.executable, "-m", "infojax.main", TINY, *SHORT, f"--workdir={tmp_path}"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while b"infojax.main" not in Path(f"/proc/{run.pid}/cmdline").read_bytes() or not handled(run.pid, signal.SIGINT):
        time.sleep(0.05)  # importing
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and "interrupted" in said and "Traceback" not in said


def handled(pid, number):
    """Whether a process catches a signal with `_interrupt`, which it installs after SIGTERM's handler."""
    caught = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    mask = int(caught.split()[1], 16)
    return mask >> (signal.SIGTERM - 1) & 1 and mask >> (number - 1) & 1


def test_the_list_names_everything_that_configs_choose_from():
    """In a separate process: neither TensorFlow is imported nor a device started."""
    program = (
        "import sys; from infojax.main import main; assert main(['--list']) == 0; import jax; "
        "assert 'tensorflow' not in sys.modules and not jax._src.xla_bridge._backends"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in (ROOT / "configs").glob("*.py"):
        assert path.name in found
    for family in (MODELS, DATASETS, OPTIMIZERS, SCHEDULES, OBJECTIVES, EVALUATORS):
        for name in family:
            assert re.search(rf"^  {name} +\S", found, re.MULTILINE), name  # with a line of what it does
    assert "preset = tiny | small | paper, term = mi | off | hd | mir | hdr, data (digits), model, seeds (1)" in found


@pytest.mark.parametrize(
    ("flag", "says"), [("term=mi", "term is mi, but its strength is 0"), ("strength=1", "strength is given, but")]
)
def test_a_term_that_changes_nothing_is_told(flag, says, tmp_path, capsys):
    assert main([TINY, f"--config.objective.{flag}", "--dry_run", f"--workdir={tmp_path}"]) == 0
    assert says in capsys.readouterr().out


def test_a_parsed_config_is_frozen():
    config, _, _ = parse(["main", f"--config={ROOT}/configs/quickstart.py", "--config.optimizer.lr=0.5"])
    assert config.optimizer.lr == 0.5
    with pytest.raises(AttributeError):
        config.optimizer.lr = 1.0


def test_the_codes_are_those_that_the_help_names(capsys):
    from infojax.tasks import faults

    assert main(["--help"]) == 0
    said = capsys.readouterr().out.partition("Exit codes: 0 done; ")[2]
    for code in (faults.FAILED, faults.BAD_INPUT, faults.NON_FINITE, faults.INTERRUPTED, faults.PREEMPTED):
        assert re.search(rf"\b{code} [a-z]", said), code


# Bad input: one line, code 2, nothing half written

BAD = {
    "unknown key": (["--config.optimizer.lrr=0.1"], r"lrr.*did you mean.*lr"),
    "wrong type": (["--config.log.every=often"], r"log.every.*often"),
    "unknown preset": ([f"--config={ROOT}/configs/interplay.py:huge"], r"preset cannot be 'huge'"),
    "no such file": (["--config=configs/none.py"], r"none.py"),
    "no config": ([], r"give --config"),
    "unknown flag": (["--wrkdir=x"], r"wrkdir"),
    "stray word": (["quickstart"], r"cannot read 'quickstart'"),
    "contradiction": (["--config.data.name=cifar10"], r"data=cifar10"),
    "steps and epochs": (["--config.steps=3", "--config.epochs=2"], r"either steps or epochs"),
    "unknown data": ([f"--config={ROOT}/configs/interplay.py:data=digit"], r"no data set 'digit'; did you mean digits"),
    "missing data": ([f"--config={ROOT}/configs/interplay.py:data=cifar10"], r"cifar10"),
    "unknown model": ([f"--config={ROOT}/configs/interplay.py:model=wrn_28"], r"no model .wrn_28.; did you mean"),
    "model option": (['--config.model.options={"width": 3}'], r"no option of mlp, 'width'; did you mean widths"),
    "unknown schedule": (["--config.optimizer.schedule=cosin"], r"schedule cannot be 'cosin'; did you mean cosine"),
    "unknown term": (["--config.objective.term=mutual"], r"objective.term cannot be 'mutual'"),
    "unknown convention": (["--config.evaluate.convention=thesi"], r"did you mean thesis"),
    "unknown transform": (["--config.objective.transform=week"], r"did you mean weak"),
    "batch too large": (["--config.objective.batch_size=5000"], r"batch_size must be from 1 to 1442.*5000"),
    "train_samples": (["--config.data.train_samples=55"], r"data.train_samples: must be a multiple of 10.*got 55"),
    "endless epochs": (["--config.epochs=inf"], r"epochs must be a positive number"),
    "no epochs": (["--config.epochs=0"], r"epochs must be a positive number"),
    "seed": (["--config.seed=3000000000"], r"seed must be a whole number of at least 0 .*, got 3000000000"),
    "task": (["--config.task=superviced"], r"no task 'superviced'; did you mean supervised"),
    "sweep of words": (["--config.sweep.name=strength", "--config.sweep.values=abc"], r"abc"),
    "a value twice": (
        ["--config.sweep.name=strength", "--config.sweep.values=1.0", "--config.sweep.values=1.0"], r"a value twice",
    ),
    "subset seed": (["--config.data.train_samples=100", "--config.data.subset_seed=-1"], r"subset_seed must be"),
    "pad": (["--config.data.pad=9"], r"pad must be in \[0, 8\)"),
    "widths": (['--config.model.options={"widths": "ab"}'], r"widths of mlp must be whole numbers"),
    "warm-up": (["--config.optimizer.warmup_steps=5000"], r"warmup_steps must be from 0 to below"),
    "warm-up of what": (
        ["--config.optimizer.warmup_steps=5", "--config.optimizer.schedule=constant"],
        r"only the schedules cosine, cosine_linspace, warmup have a warm-up",
    ),
    "no such flag file": (["--flagfile=/nonexistent"], r"nonexistent"),
    "average": (["--config.objective.ema_decay=1.5"], r"ema_decay must be a number of at least 0 and below 1, got 1.5"),
    "axis": (["--config.report.x_scale=log"], r"x_scale cannot be 'log'"),
    "depth": (
        [f"--config={ROOT}/configs/interplay.py:tiny,model=wide_resnet", "--config.model.options.depth=11"],
        r"depth must be",
    ),
    "too many devices": (["--config.devices=99"], r"devices is 99, but there are"),
    "devices and batch": (["--config.devices=3"], r"devices is 3, which does not divide the batch of 64"),
    "sweep of nothing": (["--config.sweep.name=strength"], r"sweep needs a name and values"),
    "sweep of what is no number": (
        ["--config.sweep.name=term", "--config.sweep.values=1.0"], r"sweep.name cannot be 'term'",
    ),
    "option of the data set": (["--config.data.options.size=8"], r"no key config.data.options.size; digits has no opt"),
    "paper on digits": ([f"--config={ROOT}/configs/interplay.py:paper,data=digits"], r"paper is for the papers' data"),
    "clip": (["--config.optimizer.clip=-1"], r"config.optimizer.clip must be a number of at least 0, got -1"),
    "very many epochs": (["--config.epochs=1e300"], r"epochs is 1e\+300, which is .* steps; expected fewer"),
    "best": (["--config.checkpoint.best=nonsense"], r"best must be a split and a quantity, as 'test accuracy'"),
    "how": (["--config.how=pmap"], r"how cannot be 'pmap'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    arguments, message = BAD[name]
    base = [] if any(a.startswith("--config=") for a in arguments) or name == "no config" else [TINY]
    assert main([*base, *arguments, f"--workdir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("infojax.main: ") and error.count("\n") == 1, error
    assert re.search(message, error, re.IGNORECASE), error
    assert not (tmp_path / "run").exists()


def test_no_traceback_from_the_command_itself(tmp_path):
    command = [sys.executable, "-m", "infojax.main", "--config=configs/none.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def folder_run(pictures, workdir):
    config = f"--config={ROOT}/configs/interplay.py:data=folder,model=mlp"
    flags = [f"--config.data.dir={pictures}", "--config.data.train_samples=0", "--config.objective.batch_size=8"]
    return main([config, *flags, '--config.data.options={"size": 16}', *SHORT, ONE_DEVICE, f"--workdir={workdir}"])


def test_a_folder_of_pictures(pictures, tmp_path, capsys):
    """What the data set notes is printed and kept."""
    (pictures / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    assert folder_run(pictures, tmp_path / "run") == 0
    notes = json.loads((tmp_path / "run" / "config.json").read_text())["notes"]
    assert "folder: left out: not named as pictures: 1 (train/cat/Thumbs.db)" in notes
    assert set(notes) < set(capsys.readouterr().out.splitlines())
    assert rows_of(tmp_path / "run")[-1]["n"] == 8


def test_pictures_with_a_constant_channel(pictures, tmp_path, capsys):
    """Nothing is divided by a deviation of zero, and a note reports it."""
    for path in pictures.rglob("*.png"):
        x = np.array(Image.open(path))
        x[..., 1] = 7
        Image.fromarray(x).save(path)
    assert folder_run(pictures, tmp_path / "run") == 0
    assert "channels of one value in all training samples, not scaled: [1] of 3" in capsys.readouterr().out
    assert np.isfinite(rows_of(tmp_path / "run")[-1]["loss"])


def test_a_broken_picture(pictures, tmp_path, capsys):
    broken = pictures / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert folder_run(pictures, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert str(broken) in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


FASHION = ROOT.parent / "shared" / "data" / "fashion_mnist"


@pytest.mark.skipif(not FASHION.is_dir(), reason="the official Fashion-MNIST files are not here")
@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing"])
def test_damaged_archives(harm, tmp_path, capsys):
    data = tmp_path / "fashion_mnist"
    shutil.copytree(FASHION, data)
    victim = data / "train-images-idx3-ubyte.gz"
    content = bytearray(victim.read_bytes())
    if harm == "truncated":
        victim.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()
    config = f"--config={ROOT}/configs/interplay.py:data=fashion_mnist,model=mlp"
    assert main([config, *SHORT, f"--config.data.dir={tmp_path}", f"--workdir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert "train-images" in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_labels_out_of_range(tmp_path, capsys, monkeypatch):
    from infojax.data import Arrays, Dataset

    def wrong():
        arrays = Arrays(np.zeros((20, 8, 8, 1), np.uint8), np.arange(20))
        return Dataset("digits", 10, (), {"train": lambda: arrays, "test": lambda: arrays}, flip=False)

    monkeypatch.setitem(sys.modules["infojax.data"].DATASETS, "digits", wrong)
    assert main([TINY, *SHORT, f"--workdir={tmp_path}/run"]) == 2
    assert "label 10 of sample 10 is outside 0 to 9" in capsys.readouterr().err


# Faults


@pytest.mark.parametrize("lr", ["1e30"])
def test_infinite_learning_rate(lr, tmp_path, capsys):
    flags = [f"--config.optimizer.lr={lr}", "--config.optimizer.schedule=constant", "--config.checkpoint.every=1"]
    assert main([TINY, *SHORT, ONE_DEVICE, *flags, "--config.log.every=1", f"--workdir={tmp_path}"]) == 3
    error = capsys.readouterr().err
    assert "step 1" in error or "step 2" in error or "step 3" in error
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) <= 2
    assert main([TINY, *SHORT, ONE_DEVICE, *flags, "--config.log.every=1", f"--workdir={tmp_path}"]) == 3


def test_one_run_of_a_group_goes_non_finite(tmp_path):
    """The others go on, as if it were not there."""
    sweep = ["--config.sweep.name=strength", "--config.sweep.values=0.0", "--config.sweep.values=1e38"]
    string = f"--config={ROOT}/configs/regularized.py:tiny,term=mi,model=mlp"
    assert main([string, *SHORT, ONE_DEVICE, *sweep, f"--workdir={tmp_path}"]) == 0
    rows = rows_of(tmp_path)
    assert {row["strength"] for row in rows if row.get("frozen")} == {1e38}
    alone = f"--config={ROOT}/configs/regularized.py:tiny,term=mi,model=mlp"
    assert main([alone, *SHORT, ONE_DEVICE, "--config.objective.strength=0.0", f"--workdir={tmp_path}/alone"]) == 0
    mine = [row["loss"] for row in rows if row["strength"] == 0.0]
    np.testing.assert_allclose(mine, [row["loss"] for row in rows_of(tmp_path / "alone")], rtol=1e-3)


def command(folder, *flags):
    return [sys.executable, "-m", "infojax.main", TINY, *SHORT, ONE_DEVICE, *flags, f"--workdir={folder}"]


def test_sigterm_and_the_same_command_again(whole, tmp_path):
    flags = ["--config.epochs=40", "--config.checkpoint.every=100", WIDE]
    running = subprocess.Popen(command(tmp_path, *flags), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and '"train"' in metrics.read_text()):
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert b"stopped at step" in running.communicate(timeout=60)[1]
    assert running.returncode == 143
    assert main([TINY, *SHORT, ONE_DEVICE, *flags, f"--workdir={tmp_path}"]) == 0
    steps = [row["step"] for row in rows_of(tmp_path) if row["kind"] == "train"]
    assert steps == [*range(10, 901, 10), 901]


def test_disk_full(tmp_path, capsys):
    """A checkpoint that cannot be written ends the run in one line."""
    flags = ["--config.checkpoint.every=22", WIDE]
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$@"', "-", *command(tmp_path / "full", *flags)]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "was not written" in done.stderr.strip().splitlines()[-1]
