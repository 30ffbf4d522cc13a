"""Stop signals: none is lost, none ends in a traceback, and nohup's SIGHUP stays ignored."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DROPPED = """
import signal, time, weakref
from cmbench.core.errors import Interrupted
from cmbench.core.interrupts import InterruptHandler

class Held:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def by_weak_reference():
    held = set()
    reference = weakref.ref(held, lambda _: signal.raise_signal(signal.SIGINT))
    del held

def by_del():
    Held()

try:
    InterruptHandler().install()
    {how}()
    time.sleep(30)
    print("went on")
except Interrupted:
    print("interrupted")
"""
TWICE = """
import signal
import cmbench.cli.main as cli

class Console:
    def __init__(self, **options): pass
    def print(self, text, **options):
        signal.raise_signal(signal.SIGINT)
        print(text)

cli.Console = Console
cli.app = lambda: signal.raise_signal(signal.{first})
cli.main()
"""
CLOSED = """
import os, signal
import cmbench.cli.main as cli

def app():
    try:
        signal.raise_signal(signal.SIGHUP)
    finally:
        raise OSError(5, "Input/output error")

cli.app = app
os.close(2)
cli.main()
"""


def run_python(code, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment,
        check=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["by_weak_reference", "by_del"])
def test_an_interrupt_that_python_drops_is_raised_again(how):
    done = run_python(DROPPED.replace("{how}", how))
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_interrupt_prints_no_traceback(first):
    done = run_python(TWICE.replace("{first}", first))
    assert done.returncode == 130
    assert done.stdout == "interrupted; run the same command again to resume\n"
    assert done.stderr == ""


def test_a_terminal_that_closed_leaves_the_exit_code_of_an_interrupt():
    assert run_python(CLOSED).returncode == 130


def test_a_sighup_that_nohup_ignores_stays_ignored():
    code = TWICE.replace("{first}", "SIGHUP") + "\nprint('finished')"
    ignored = run_python(code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (ignored.returncode, ignored.stdout) == (0, "finished\n")
