"""`deploy/local/up` and `down`: a Ray head, Dagster's webserver and its daemon on this machine, on loopback only.

All three share one process group, which is not the caller's: Ctrl-C reaches `up` alone, and `up` ends them in order.
What was started stands in DAGSTER_HOME/up/up.json, so that `down` works from anywhere, and also after `up` was killed.
Exit codes: 0 done, 1 a service ended or did not come up, 2 it is up already (or, for `down`, it is not).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from deploy import processes

ROOT = Path(__file__).resolve().parents[2]
UP, DOWN = 180.0, 60.0  # seconds until all three answer, and until `up` has ended them


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="deploy/local/up", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    given = verbs.add_parser("up")
    given.add_argument("--detach", action="store_true", help="return once all answer; deploy/local/down ends them")
    given.add_argument("--port", type=int, metavar="N", help="Dagster's port (default: 3000, or a free one)")
    given.add_argument("--ray-port", type=int, metavar="N", help="of Ray's dashboard (default: 8265, or a free one)")
    given.add_argument("--cpus", type=int, metavar="N", help="that Ray may use (default: all)")
    verbs.add_parser("down")
    options = parser.parse_args(arguments)
    try:
        state = state_file()
        if options.verb == "down":
            return down(state)
        return detached(state, arguments) if options.detach else up(state, options)
    except Exception as error:
        from assets import failures

        line = str(error) if isinstance(error, RuntimeError) else failures.foreseen(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1


def state_file() -> Path:
    """Where what is up is written down: once for each DAGSTER_HOME. Errors: ValueError if it cannot be written."""
    from assets.instance import home

    folder = home() / "up"
    folder.mkdir(exist_ok=True)
    return folder / "up.json"


def up(state: Path, options: argparse.Namespace) -> int:
    """Start all three, and end them at Ctrl-C, SIGTERM, or when one of them ends."""
    from assets.instance import limit_pools, local_instance

    if found := living(state):
        print(f"it is up: {found['url']}   Ray {found['ray_url']}   deploy/local/down ends it", file=sys.stderr)
        return 2
    with local_instance() as instance:
        limit_pools(instance)
    dagster = chosen(options.port, 3000)
    dashboard = chosen(options.ray_port, 8265)
    (gcs,) = processes.free_ports(1)
    urls = {"url": f"http://127.0.0.1:{dagster}", "ray_url": f"http://127.0.0.1:{dashboard}"}
    record: dict = {"up": identity(os.getpid()), "started": {}, **urls, "ready": False}
    running: dict[str, subprocess.Popen[bytes]] = {}
    # One way out for every signal; a terminal that closes is one, and a shell's background job ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    environment = surroundings(gcs)
    code = 0
    try:
        for name, command in services(gcs, dashboard, dagster, options.cpus).items():
            group = next(iter(running.values())).pid if running else 0
            log = state.with_name(f"{name}.log")
            running[name] = processes.start(command, log, environment, group=group, folder=ROOT)
            record["started"][name] = identity(running[name].pid)
            write(state, record)
            wait_for(name, running, urls, log, environment)
        write(state, record | {"ready": True})
        print(f"{urls['url']}   Ray {urls['ray_url']}   object store {environment['OPD_STORE']}", flush=True)
        print("Ctrl-C or deploy/local/down ends it", flush=True)
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        ended = next(name for name, process in running.items() if process.poll() is not None)
        print(f"error: the {ended} ended; see {state.with_name(f'{ended}.log')}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopping", flush=True)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        end(running)
        state.unlink(missing_ok=True)
    return code


def down(state: Path) -> int:
    """End what is up: through `up` where it lives, else its services by their ids."""
    if not (found := living(state)):
        print("it is not up", file=sys.stderr)
        return 2
    pid, birth = found["up"]
    if processes.alive(pid, birth):
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + DOWN
        while processes.alive(pid, birth) and time.monotonic() < limit:
            time.sleep(0.1)
    roots = [pid for pid, birth in found["started"].values() if processes.alive(pid, birth)]
    processes.finish(processes.descendants(roots), 0.0 if roots else 1.0)
    state.unlink(missing_ok=True)
    print("ended")
    return 0


def detached(state: Path, arguments: list[str]) -> int:
    """`up` in a session of its own, waiting until it is ready."""
    if found := living(state):
        print(f"it is up: {found['url']}   Ray {found['ray_url']}   deploy/local/down ends it", file=sys.stderr)
        return 2
    log = state.with_name("up.log")
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "deploy.local", *(word for word in arguments if word != "--detach")]
    with open(log, "ab") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=Path.cwd(), start_new_session=True
        )
    while child.poll() is None:
        if (found := living(state)) and found["ready"]:
            print(f"{found['url']}   Ray {found['ray_url']}   deploy/local/down ends it")
            return 0
        time.sleep(0.3)
    print(log.read_text(errors="replace").strip(), file=sys.stderr)
    return child.returncode or 1


def services(gcs: int, dashboard: int, dagster: int, cpus: int | None) -> dict[str, list[str]]:
    """The command lines, in the order in which they start."""
    programs = Path(sys.executable).parent
    agent, metrics = processes.free_ports(2)
    head = [
        "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}",
        "--disable-usage-stats", *([f"--num-cpus={cpus}"] if cpus else []),
    ]  # fmt: skip
    workspace = ["-w", str(ROOT / "workspace.yaml")]
    return {
        "ray": [str(programs / "ray"), *head],
        "webserver": [sys.executable, "-m", "assets.webserver", *workspace, "-h", "127.0.0.1", "-p", str(dagster)],
        "daemon": [str(programs / "dagster-daemon"), "run", *workspace],
    }


def surroundings(gcs: int) -> dict[str, str]:
    """What all three and all runs know: where Ray is, what opens it, and where the store is."""
    from pipelines.runs.cluster import token
    from pipelines.store.objects import default_uri

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {
        "PATH": path,
        "OPD_STORE": default_uri(),
        "RAY_ADDRESS": f"127.0.0.1:{gcs}",
        **token.token_variables(os.environ),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Else Ray takes 127.0.0.1 to mean the machine's outer address, and listens there.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONUNBUFFERED": "1",
    }


def wait_for(
    name: str,
    running: Mapping[str, subprocess.Popen[bytes]],
    urls: Mapping[str, str],
    log: Path,
    environment: Mapping[str, str],
) -> None:
    """Until the service answers. Errors: RuntimeError with its last lines."""
    from pipelines.runs.cluster import token

    page = {"webserver": f"{urls['url']}/server_info", "ray": f"{urls['ray_url']}/api/version"}.get(name)
    limit = time.monotonic() + UP
    while page and not answers(page, token.read_token(environment) if name == "ray" else ""):
        if running[name].poll() is not None or time.monotonic() > limit:
            lines = " / ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise RuntimeError(f"the {name} did not come up: {lines}")
        time.sleep(0.3)


def answers(page: str, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(page, headers=headers), timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def chosen(given: int | None, wanted: int) -> int:
    """The port that was asked for, `wanted` if it is free, or a free one. Errors: ValueError for one that is taken."""
    if given is not None:
        if processes.answers(given):
            raise ValueError(f"port {given} of 127.0.0.1 is taken; give another, or none for a free one")
        return given
    return processes.free_ports(1)[0] if processes.answers(wanted) else wanted


def identity(pid: int) -> list:
    """A process, and when it was born, since its number may be another's one day."""
    return [pid, processes.born(pid)]


def living(state: Path) -> dict | None:
    """What is written down, if any of it still lives."""
    try:
        found = json.loads(state.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    known = [found["up"], *found["started"].values()]
    return found if any(processes.alive(pid, birth) for pid, birth in known) else None


def write(state: Path, record: dict) -> None:
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(record))
    os.replace(fresh, state)


def end(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """The daemon first, so that nothing new is launched, then the webserver and what runs, and Ray last."""
    processes.stop([running[name] for name in ("daemon", "webserver", "ray") if name in running])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
