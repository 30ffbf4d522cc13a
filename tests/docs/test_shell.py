"""Completion in real shells, and manners towards pipes: `NO_COLOR`, quiet progress, exit codes."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from cmbench.cards.cards import list_cards
from cmbench.cards.scaffold import Kind
from cmbench.cli import complete
from cmbench.core.loader import available
from cmbench.metrics.statistics.formats import FORMATS
from cmbench.run.edit import Task

ROOT = Path(__file__).parents[2]
# What is typed before Tab, and the only word that it can become.
TYPED = {
    "cmbench run digits_n": "digits_nfe",
    "cmbench plan suites/mi": "suites/mine.yaml",
    "cmbench run digits_nfe --engine sl": "slurm",
    "cmbench models show edm/cifar10_lo": "edm/cifar10_long",
    "cmbench models show stripes/sm": "stripes/small",
    "cmbench models new mine --kind one": "oneshot",
    "cmbench assets fetch inception-2015": "inception-2015-12-05",
    "cmbench score --features digits_": "digits_classifier",
    "cmbench score --features pixels,effic": "pixels,efficientnet_lite0",
    "cmbench score --metrics frechet_d": "frechet_distance",
    "cmbench score --reference cifar": "cifar10",
    "cmbench stats convert a.npz b.npz --to pytorch": "pytorch-fid",
    "cmbench edit --task super": "super-resolve",
    "cmbench compare results/fi": "results/first",
    "cmbench report --si": "--site",
    "cmbench doc": "doctor",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a suite, a plugin and results, and `cmbench` in bin/."""
    root = tmp_path_factory.mktemp("shell")
    for folder in ("bin", "suites", "models/stripes", "results/first/records", "models/broken"):
        (root / folder).mkdir(parents=True)
    command = root / "bin" / "cmbench"
    command.write_text(f"#!{sys.executable}\nfrom cmbench.cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    (root / "suites" / "mine.yaml").write_text("suite: mine\n")
    for family, cards in (("stripes", "small: {summary: one}\n"), ("broken", "{{{")):
        (root / "models" / family / "adapter.py").write_text('"""A plugin."""\n')
        (root / "models" / family / "cards.yaml").write_text(cards)
    return root


def _environment(place: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CMBENCH_", "_"))}
    path = f"{place / 'bin'}{os.pathsep}{kept['PATH']}"
    return kept | {
        "PATH": path, "HOME": str(place), "TERM": "dumb", "OMP_NUM_THREADS": "1",
        "CMBENCH_CACHE": str(place / "cache"),
    }  # fmt: skip


def _script(place: Path, shell: str) -> Path:
    """The completion script of a shell, as `cmbench` prints it."""
    done = subprocess.run(
        ["cmbench"], env=_environment(place) | {"_CMBENCH_COMPLETE": f"source_{shell}"}, cwd=place,
        text=True, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    path = place / f"completion.{shell}"
    path.write_text(done.stdout)
    return path


def _completed(place: Path, shell: str, start: list[str], setup: list[str]) -> list[str]:
    """Each of TYPED as the shell completed it, written by the shell itself."""
    found = place / f"lines.{shell}"
    note = f'note() {{ print_line "$*" >> {found}; }}; print_line() {{ printf \'%s\\n\' "$1"; }}'
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(place)
        os.execve(start[0], start, _environment(place))
    for line in [*setup, note]:
        os.write(terminal, line.encode() + b"\n")
        time.sleep(0.3)
    for line in TYPED:  # Ctrl-A goes to the line's beginning, where `note` is put before it
        os.write(terminal, line.encode() + b"\t\x01note \n")
    os.write(terminal, b"exit\n")
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:  # the terminal's other end is closed: the shell has ended
                break
    os.close(terminal)
    os.waitpid(child, 0)
    return found.read_text().splitlines() if found.is_file() else []


def _wanted() -> list[str]:
    return [f"{line.rpartition(' ')[0]} {word}" for line, word in TYPED.items()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_what_is_typed(place):
    script = _script(place, "bash")
    setup = [f"source {script}"]
    start = [shutil.which("bash"), "--norc", "--noprofile", "-i"]
    lines = _completed(place, "bash", start, setup)
    assert [line.rstrip().rstrip("/") for line in lines] == _wanted()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
def test_zsh_completes_what_is_typed(place):
    script = _script(place, "zsh")
    setup = ["bindkey -e", "autoload -Uz compinit; compinit -u -D", f"source {script}"]
    lines = _completed(place, "zsh", [shutil.which("zsh"), "-f", "-i"], setup)
    assert [line.rstrip().rstrip("/") for line in lines] == _wanted()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish on this machine")
def test_fish_offers_what_is_wanted(place):
    script = _script(place, "fish")
    for line, word in TYPED.items():
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"], cwd=place,
            env=_environment(place), text=True, capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        offered = [row.split("\t")[0].rstrip("/") for row in done.stdout.splitlines()]
        assert word in offered, (line, done.stdout, done.stderr)


def test_what_is_offered_is_what_there_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    cards = {card.full_name for card in list_cards()}
    assert cards <= set(complete.complete_model(""))
    for kind in ("sampler", "metric", "features", "dataset"):
        names = [item.name for item in available(kind)]
        assert complete.complete_component(kind)("") == names
    assert get_args(Task) == complete.EDITS
    assert get_args(Kind) == complete.MODEL_KINDS
    assert FORMATS == complete.FORMATS


def test_completing_imports_no_torch():
    code = (
        "import sys; from cmbench.cli import complete as c; "
        "c.complete_model(''); c.complete_suite(''); c.complete_asset(''); c.complete_features(''); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def _in_terminal(place: Path, *args: str, **more: str) -> str:
    """What a command prints where its output is a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(place)
        os.execvpe("cmbench", ["cmbench", *args], _environment(place) | {"TERM": "xterm"} | more)
    seen = b""
    while True:
        try:
            got = os.read(terminal, 65536)
        except OSError:
            break
        if not got:
            break
        seen += got
    os.close(terminal)
    os.waitpid(child, 0)
    return seen.decode()


def test_no_color_is_obeyed_and_a_pipe_gets_none(place):
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][;0-9]*m")
    assert colour.search(_in_terminal(place, "--help"))
    assert not colour.search(_in_terminal(place, "--help", NO_COLOR="1"))
    done = subprocess.run(
        ["cmbench", "--help"], env=_environment(place), cwd=place, text=True, capture_output=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert "\x1b" not in done.stdout
