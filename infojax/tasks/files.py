"""Reads config files: calls `get_config` of a Python file, or says in one line why it cannot."""

import runpy
from importlib import metadata
from pathlib import Path

from ml_collections import ConfigDict

import infojax.tasks
from infojax.commands import say
from infojax.suggestions import suggest
from infojax.tasks.config import ConfigError, Listing, one_line


def shipped_configs() -> Path:
    """The folder of the configs that came with infojax: of the checkout, or of the installed package."""
    checkout = Path(infojax.tasks.__file__).parents[2] / "configs"
    if (checkout / "quickstart.py").exists():
        return checkout
    try:
        files = metadata.files("infojax") or []
    except metadata.PackageNotFoundError:
        files = []
    found = next((file for file in files if file.parts[-3:] == ("infojax", "configs", "quickstart.py")), None)
    return checkout if found is None else Path(found.locate()).resolve().parent


def read_text(file: str, key: str) -> str:
    """The text of a file that `key` of a config names, in UTF-8 with or without a byte order mark.

    Raises:
      ConfigError: it cannot be read, or is no text.
    """
    try:
        return Path(file).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {file} is no text in UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_config(given: str) -> ConfigDict:
    """The config of "FILE.py:STRING", or of "FILE.py".

    Raises:
      ConfigError: the file cannot be read or run, or does not return a config; one line.
    """
    name, colon, string = given.partition(":")
    path = Path(name)
    if path.parent == Path("configs") and not path.exists() and (shipped_configs() / path.name).is_file():
        path = shipped_configs() / path.name
        say("infojax.main", f"{name}: there is none here; taken from {path}")
    what = f"--config={name!r}" if not name.isprintable() else f"--config={name}"
    if not name:
        raise ConfigError(f"--config is {given!r}; give a file, as --config=configs/quickstart.py")
    try:
        if path.is_dir():
            raise ConfigError(f"{what}: is a folder; give a file in it{_files(path)}")
        if not path.exists():
            shipped = path.parent == Path("configs") and not path.parent.is_dir()
            folder = shipped_configs() if shipped else path.parent
            raise ConfigError(f"{what}: no such file{_files(folder, path.name)}")
        if not path.is_file():
            raise ConfigError(f"{what}: is not a regular file")
    except (OSError, ValueError) as error:  # a name that is too long or has a null byte
        raise ConfigError(f"{what[:200]}: {error}") from None
    if path.suffix != ".py":
        raise ConfigError(f"{what}: is not a Python file, whose name ends in .py")
    try:
        config = _get_config(path, what)(*([string] if colon else []))
    except (ConfigError, Listing, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the user's file raises, SystemExit too
        raise ConfigError(_where(error, path, what)) from None
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{what}: get_config returned {type(config).__name__}, expected an ml_collections.ConfigDict")
    return config


def _get_config(path, what):
    found = runpy.run_path(str(path), run_name=f"infojax_config_{path.stem}").get("get_config")
    if not callable(found):
        raise ConfigError(f"{what}: has no function get_config(string), which returns the config")
    return found


def _where(error, path, what):
    """The error of a config file, with its type and line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{what}, line {error.lineno}: {error.msg}"
    text = one_line(error, path.name)
    where, colon, what_for = text.partition(": ")
    if not (colon and where.startswith(f"{path.name}, line ")):
        return f"{what}: {type(error).__name__}: {text}"
    return f"{where}: {type(error).__name__}: {what_for}" if isinstance(error, KeyError | SystemExit) else text


def _files(folder, name=None):
    """The end of a message: the config file of a similar name, or all of the folder."""
    known = sorted(p.name for p in folder.glob("*.py")) if folder.is_dir() else []
    if not known:
        return ""
    return suggest(name, known) if name else f"; there is {', '.join(known[:12])}"
