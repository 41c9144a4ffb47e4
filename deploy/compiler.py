"""Before `make setup` downloads anything: a C compiler with Python's headers, or one line that says how to get one.

`compiler.py PACKAGE`: the package that pip compiles; where it is installed already, nothing is needed.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig

HELP = (
    "apt install gcc python3-dev, dnf install gcc python3-devel or xcode-select --install brings one; CC names another"
)


def main(package: str) -> int:
    if importlib.util.find_spec(package) is not None:
        return 0
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if reason := problem(compiler):
        print(f"error: no C compiler ({reason}), which pip needs to build {package}: {HELP}", file=sys.stderr)
        return 2
    return 0


def problem(compiler: str) -> str:
    """Why a compiler does not compile what includes Python.h, in one line; empty where it does."""
    command = [*shlex.split(compiler), "-I", sysconfig.get_path("include"), "-fsyntax-only", "-x", "c", "-"]
    try:
        done = subprocess.run(command, input="#include <Python.h>\n", capture_output=True, text=True)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return "" if done.returncode == 0 else f"{command[0]}: {lines[0] if lines else f'exit status {done.returncode}'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
