"""One of several processes that have joined once and run many commands: arguments in on stdin, what became of them out.

Starting a process and loading its libraries takes longer than the commands of most tests.
"""

import contextlib
import io
import json
import sys

from infojax import main, processes


def program():
    answers = sys.stdout
    for line in sys.stdin:
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            code = main._run([main.NAME, *json.loads(line)])
        print(json.dumps([code, said.getvalue(), errors.getvalue()]), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    with main._quiet():
        code = processes.run(program, processes.split_flags(sys.argv[1:])[0], main.NAME, stops=main.GRACE)
    sys.exit(code)
