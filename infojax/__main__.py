"""`infojax COMMAND ...`, or `python -m infojax COMMAND ...`: what `python -m infojax.COMMAND ...` does."""

import runpy
import sys
from collections.abc import Sequence

from infojax.commands import BAD_INPUT, say, show, versions

COMMANDS = {
    "measure": "measures saved features: a file, or several side by side",
    "main": "trains, measures and draws what a config says",
    "report": "draws run folders again, or compares them",
    "bench": "tables of speed and accuracy",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, or ends with that of the command that it ran."""
    argv = sys.argv[1:] if argv is None else list(argv)
    width = max(map(len, COMMANDS))
    listing = "".join(f"  {name:<{width}}  {what}\n" for name, what in COMMANDS.items())
    if not argv or argv[0] in ("-h", "--help"):
        show(f"usage: infojax COMMAND ...\n\n{listing}\ninfojax COMMAND --help says more; infojax --version.\n")
        return 0 if argv else BAD_INPUT
    if argv[0] == "--version":
        show(versions())
        return 0
    if argv[0] not in COMMANDS:
        say("infojax", f"{argv[0]!r} is no command; expected {', '.join(COMMANDS)}")
        return BAD_INPUT
    sys.argv = [f"infojax.{argv[0]}", *argv[1:]]
    runpy.run_module(f"infojax.{argv[0]}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
