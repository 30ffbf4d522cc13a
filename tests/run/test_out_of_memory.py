"""A command that asks for more memory than there is says so, without a traceback."""

import numpy as np
import pytest

from cmbench.cli import main as command_line


def test_memory_that_does_not_suffice_is_exit_code_2(monkeypatch, capsys):
    def greedy():
        np.empty(2**55, np.float64)

    monkeypatch.setattr(command_line, "app", greedy)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "error: not enough memory: " in shown
    assert "PiB" in shown
    assert "fix: " in shown
