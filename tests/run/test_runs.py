"""Whole runs through the command line: results, resuming, kills, faults."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from tiny_suite import SUITE, cmbench, command, environment, fresh, outputs


def test_a_run_leaves_records_report_and_provenance(undisturbed):
    root = undisturbed / "results" / "tiny"
    records = [json.loads(f.read_text()) for f in (root / "records").glob("*.json")]
    assert {(r["label"], r["nfe"]) for r in records} == {
        ("EDM", 1.0), ("EDM", 3.0), ("oracle", 1.0), ("oracle", 2.0)
    }  # fmt: skip
    for record in records:
        names = {s["name"] for s in record["scores"]}
        assert {"frechet_distance", "inception_score", "precision", "recall", "kid"} <= names
        assert all(s["title"] != "FID" for s in record["scores"])
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "report.html",
                 "provenance.json", "suite.yaml", "speed.json", "samples.png"):  # fmt: skip
        assert (root / name).stat().st_size > 0
    assert "EDM" in (root / "leaderboard.md").read_text()


def test_a_second_run_makes_nothing(undisturbed):
    before = outputs(undisturbed)
    done = cmbench(undisturbed, "run", "tiny.yaml", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "results": "results/tiny", "done": 4, "new": 0, "failed": 0, "pending": 0,
        "pending_scores": 0,
    }  # fmt: skip
    assert outputs(undisturbed) == before


def _corrupt(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def test_corrupt_outputs_are_found_and_made_again(undisturbed, tmp_path):
    before = outputs(undisturbed)
    objects = undisturbed / "cache" / "objects"
    for kind, name in (("sample", "pixels.npy"), ("features", "pool.npy")):
        _corrupt(sorted((objects / kind).rglob(name))[0])
    for file in (objects / "score").rglob("scores.json"):
        _corrupt(file)  # all of them: features are read again only for a score that is missing
    for record in (undisturbed / "results" / "tiny" / "records").glob("*.json"):
        record.unlink()
    done = cmbench(undisturbed, "run", "tiny.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    assert outputs(undisturbed) == before


@pytest.mark.slow
def test_killed_at_several_points_a_run_ends_with_the_same_bytes(undisturbed, tmp_path):
    folder = fresh(tmp_path / "b")
    chance = random.Random(0)
    kills = 0
    for wait in [2.5 + 5 * chance.random() for _ in range(5)]:
        running = subprocess.Popen(command("run", "tiny.yaml", "--quiet"), cwd=folder,
                                   env=environment(folder), start_new_session=True)  # fmt: skip
        time.sleep(wait)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            kills += 1
        running.wait()
    assert kills >= 2
    done = cmbench(folder, "run", "tiny.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == outputs(undisturbed)


def test_an_interrupt_says_how_to_go_on(tmp_path):
    folder = fresh(tmp_path / "c")
    running = subprocess.Popen(command("run", "tiny.yaml"), cwd=folder, env=environment(folder),
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    work = folder / "cache" / "work"
    deadline = time.monotonic() + 60
    while not list(work.glob("*/checkpoint-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "run the same command again" in told
    assert "Traceback" not in told


def test_a_failing_model_fails_alone_and_is_tried_again(tmp_path):
    folder = fresh(tmp_path / "d")
    (folder / "models").mkdir()
    (folder / "models" / "sick.py").write_text(
        '"""Sick: makes NaN until it is healed."""\n'
        "from pathlib import Path\nimport torch\nfrom cmbench.api import Denoiser, Model\n"
        '__all__ = ["Sick"]\n'
        "class _D(Denoiser):\n"
        "    def __init__(self):\n        super().__init__((1, 8, 8))\n"
        "        self.net = torch.nn.Identity()\n"
        "    def forward(self, x, sigma, labels=None):\n"
        "        return self.net(x) * (0.1 if Path('healed').exists() else float('nan'))\n"
        'class Sick(Model):\n    sampler = {"name": "euler"}\n    def build(self):\n        return _D()\n'
    )
    suite = SUITE.replace(
        "  - model: edm/digits\n    label: EDM\n", "  - model: sick\n    label: sick\n"
    )
    suite = suite.replace(
        "    train: {images: 768, batch: 64, save_every_images: 128, log_every: 2}\n", ""
    )
    (folder / "tiny.yaml").write_text(suite)
    done = cmbench(folder, "run", "tiny.yaml", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 2
    assert json.loads(done.stdout)["done"] == 2
    assert "hold NaN or infinity" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hold NaN or infinity" in (folder / "results" / "tiny" / "leaderboard.md").read_text()
    (folder / "healed").touch()
    again = cmbench(folder, "run", "tiny.yaml", "--json", "--quiet")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["new"] == 2


def test_what_is_missing_waits_and_the_rest_runs(tmp_path):
    folder = fresh(tmp_path / "e")
    suite = SUITE.replace(
        "precision_recall, kid]", "{name: frechet_distance, features: inception}]"
    )
    suite = suite[: suite.index("  - model: edm")] + suite[suite.index("  - model: oracle") :]
    (folder / "tiny.yaml").write_text(suite)
    done = cmbench(folder, "run", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if line.startswith("pending: "))
    assert "frechet_distance of 2 cells: Inception's weights are not on this machine" in said
    assert said.endswith("bring it with: cmbench assets fetch inception-2015-12-05")
    text = (folder / "results" / "tiny" / "leaderboard.md").read_text()
    assert "cmbench assets fetch inception-2015-12-05" in text
    record = json.loads(next((folder / "results" / "tiny" / "records").glob("*.json")).read_text())
    assert record["status"] == "done"
    assert record["pending_scores"][0]["title"] == "FID"
    (folder / "tiny.yaml").write_text(suite.replace("nfe: [1, 2]", "nfe: [1, 2, 4]"))
    more = cmbench(folder, "run", "tiny.yaml")
    last = [line for line in more.stderr.splitlines() if line.startswith("[")][-1]
    done, of = last[1 : last.index("]")].split("/")
    assert done == of  # what was there already is not counted as work to do


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "nowhere.yaml"], "no such suite file"),
        (["run", "tiny.yaml", "--device", "cuda:77"], "can't be used"),
        (["run", "tiny.yaml", "--data", "nowhere"], "does not exist"),
        (["report", "nowhere"], "holds no results"),
        (["train", "nowhere.yaml", "--out", "x"], "no such file"),
    ],
)
def test_bad_input_is_told_without_a_traceback(tmp_path, args, message):
    folder = fresh(tmp_path / "f")
    done = cmbench(folder, *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_lists_jobs_and_cost(undisturbed):
    done = cmbench(undisturbed, "plan", "tiny.yaml", "--json")
    plan = json.loads(done.stdout)
    assert plan["evaluations"] == 0
    assert {c["state"] for c in plan["cells"]} == {"cached"}
    fresh_plan = json.loads(cmbench(undisturbed, "plan", "tiny.yaml", "--json",
                                    CMBENCH_CACHE=str(undisturbed / "none")).stdout)  # fmt: skip
    # 40 images at 1 + 3 and 1 + 2 evaluations, of which the first of each two is one and the same.
    assert fresh_plan["evaluations"] == 40 * 5
    assert fresh_plan["evaluations_saved"] == 40 * 2
    assert fresh_plan["seconds"] > 0
