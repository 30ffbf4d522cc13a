"""A Slurm of one machine: sbatch forks the tasks, scontrol requeues, scancel ends, sacct tells.

Called under each of those names. A supervisor process a submission keeps its tasks: a task that ends
is started anew while a requeue of it was asked for. `$FAKE_SLURM/<array>_<task>` is a folder with
`pid`, `state`, `starts`, and `requeue` once it was asked for.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    number = str(1000 + len(list(PLACE.glob("script-*"))))
    kept = PLACE / f"script-{number}"
    kept.write_text(text)
    array = re.search(r"--array='?0-(\d+)", text)
    names = [f"{number}_{i}" for i in range(int(array[1]) + 1)] if array else [number]
    for name in names:
        (PLACE / name).mkdir()
        (PLACE / name / "state").write_text("PENDING")
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        _supervise(kept, number, names)
        os._exit(0)
    print(f"Submitted batch job {number}")


def _supervise(script: Path, number: str, names: list[str]) -> None:
    running = {name: _start(script, number, name) for name in names}
    while running:
        time.sleep(0.05)
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            asked = PLACE / name / "requeue"
            if asked.exists():
                asked.unlink()
                running[name] = _start(script, number, name)
            else:
                del running[name]
                ended = "COMPLETED" if process.returncode == 0 else "FAILED"
                (PLACE / name / "state").write_text(ended)


def _start(script: Path, number: str, name: str) -> "subprocess.Popen[bytes]":
    folder = PLACE / name
    environment = os.environ | {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    if "_" in name:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": name.split("_")[1]}
    process = subprocess.Popen(["bash", str(script)], env=environment, start_new_session=True)
    (folder / "pid").write_text(str(process.pid))
    (folder / "state").write_text("RUNNING")
    with (folder / "starts").open("a") as file:
        file.write(".")
    return process


def srun(*arguments: str) -> None:
    """Becomes the command behind the options; its output goes where --output says."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    rest = list(arguments)
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            path = rest.pop(0)
            for sign, value in (("%A", number), ("%a", task), ("%t", "0"), ("%j", number)):
                path = path.replace(sign, value)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(file, 1 if option == "--output" else 2)
    name = number + (f"_{task}" if "SLURM_ARRAY_TASK_ID" in os.environ else "")
    (PLACE / name / "step").write_text(str(os.getpid()))
    os.execvp(rest[0], rest)


def scontrol(verb: str, name: str) -> None:
    assert verb == "requeue"
    (PLACE / name / "requeue").touch()


def scancel(name: str, *_: str) -> None:
    for folder in [PLACE / name, *PLACE.glob(f"{name}_*")]:
        if (folder / "pid").exists():
            (folder / "requeue").unlink(missing_ok=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for state in sorted(PLACE.glob("*/state")):
        print(f"{state.parent.name}|{state.read_text()}|here")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](*sys.argv[1:])
