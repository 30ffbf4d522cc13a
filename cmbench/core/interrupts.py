"""Signals that ask the process to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that closes."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from cmbench.core.errors import Interrupted

__all__ = ["DeferredInterrupt", "InterruptHandler"]

_RETRY_SECONDS = 0.02


def _stop_signals() -> list[int]:
    """The signals that stop a command. SIGHUP is left alone where it is ignored, as by nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return [int(number) for number in numbers]


class InterruptHandler:
    """Turns a stop signal into `Interrupted`.

    `ending` is set once the command only reports how it ended: further signals are then ignored.
    It is an attribute, not a method, because Python may run a signal's handler at every call.
    """

    def __init__(self) -> None:
        self.ending = False

    def install(self) -> None:
        """Handles the signals from now on, in the main thread of the process."""
        for number in _stop_signals():
            signal.signal(number, self._interrupt)
        sys.unraisablehook = self._unraisable

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.ending:
            raise Interrupted

    def _unraisable(self, dropped: Any) -> None:
        """Sends the signal again if Python dropped it, as it does in callbacks of weak references
        and in `__del__`, which cannot raise.
        """
        if not issubclass(dropped.exc_type, Interrupted):
            sys.__unraisablehook__(dropped)
            return
        with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter ends
            threading.Timer(_RETRY_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()


class DeferredInterrupt:
    """Holds stop signals back while a block runs, which looks at `asked` where it can stop.

    A step of a training that is half done must not be saved as a checkpoint. Outside the main
    thread, which alone receives signals, the block is not disturbed either way.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "DeferredInterrupt":
        if threading.current_thread() is threading.main_thread():
            for number in _stop_signals():
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
