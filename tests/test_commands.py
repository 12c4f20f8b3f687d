"""What the commands share: programs kept from one to the next, and the command `infojax`."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import infojax
from infojax import __main__ as command
from infojax import commands
from infojax.tasks import files

KEYS = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """JAX was told of no folder, and the user's cache folder is an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = {key: getattr(jax.config, key) for key in (*KEYS, "jax_enable_compilation_cache")}
    jax.config.update(KEYS[0], None)
    yield tmp_path / "cache"
    for key, value in before.items():
        jax.config.update(key, value)


def test_programs_are_kept_in_a_bounded_folder_of_this_cpu(unset):
    assert commands.keep_programs("test", ["a", "--b"]) == ["a", "--b"]
    folder = Path(jax.config.jax_compilation_cache_dir)
    assert folder.is_dir() and folder.is_relative_to(unset / "infojax" / "programs")
    assert jax.config.jax_compilation_cache_max_size == commands.CACHE_BYTES


def test_a_program_whose_writing_was_cut_off_is_removed(unset):
    """Else JAX would add no program to the folder ever again."""
    commands.keep_programs("test", [])
    folder = Path(jax.config.jax_compilation_cache_dir)
    for name in ("whole-cache", "whole-atime", "torn-cache"):
        (folder / name).write_bytes(bytes(8))
    jax.config.update(KEYS[0], None)
    commands.keep_programs("test", [])
    assert {path.name for path in folder.iterdir()} == {"whole-cache", "whole-atime", ".lockfile"}


def test_programs_are_kept_nowhere_if_told_so_or_where_nothing_can_be_written(unset):
    unset.write_text("a file in place of the folder")
    assert commands.keep_programs("test", ["a"]) == ["a"] and jax.config.jax_compilation_cache_dir is None
    for flag in commands.NO_CACHE:
        assert commands.keep_programs("test", ["a", flag, "b"]) == ["a", "b"]
        assert not jax.config.jax_enable_compilation_cache


def test_programs_are_not_kept_where_there_are_no_locks(unset, monkeypatch):
    def no_flock(*args, **kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", no_flock)
    assert commands.keep_programs("test", ["a"]) == ["a"] and jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_jax_was_told_of_is_left_alone(unset, tmp_path):
    jax.config.update(KEYS[0], str(tmp_path / "own"))
    commands.keep_programs("test", [])
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own") and not unset.exists()


def test_one_command_for_all(capsys, tmp_path, monkeypatch):
    assert command.main([]) == command.main(["trains"]) == commands.BAD_INPUT
    assert command.main(["--version"]) == 0
    out = capsys.readouterr()
    assert out.out.splitlines()[-1].startswith(f"infojax {infojax.__version__} (jax {jax.__version__}")
    assert "'trains' is no command; expected measure, main, report, bench" in out.err
    given = [sys.executable, "-m", "infojax", "measure", "nowhere.npz"]
    environment = os.environ | {"PYTHONPATH": str(Path(infojax.__file__).parents[1])}
    found = subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == commands.BAD_INPUT and found.stderr.startswith("infojax.measure: nowhere.npz: ")


def test_configs_are_there_away_from_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert files.read_config("configs/quickstart.py").name == "quickstart"
    assert "configs/quickstart.py: there is none here; taken from " in capsys.readouterr().err
    with pytest.raises(files.ConfigError, match="configs/quikstart.py: no such file; did you mean quickstart.py"):
        files.read_config("configs/quikstart.py")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text("def get_config(string=''):\n    raise ValueError('own')\n")
    with pytest.raises(files.ConfigError, match="own"):
        files.read_config("configs/quickstart.py")
