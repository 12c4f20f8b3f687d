"""Where a run takes place: machine, versions, commit and command."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("infojax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """The machine, the versions and the command of a run, for env.json."""
    device = jax.devices()[0]
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv, "python": platform.python_version(), "host": platform.node(), "versions": versions,
        "git": _git(), "platform": device.platform, "device": device.device_kind, "devices": jax.device_count(),
        "processes": jax.process_count(), "flags": os.environ.get("XLA_FLAGS", ""),
    }  # fmt: skip


def _git():
    """Commit of the checkout that infojax runs from, with "+" if it was modified; None outside one."""
    try:
        here = Path(__file__).parent

        def git(*arguments):
            return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout

        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
