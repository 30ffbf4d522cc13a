"""Results of a toy suite: two models, two protocols, one number chosen among several, hostile names."""

import json
from pathlib import Path

from PIL import Image

from cmbench.record.schema import Record, ScoreRecord, TrainingLog, TrainingPoint

HOSTILE = (
    """</script><script>alert(1)</script><img src=x onerror=alert(2)> "q" 'p' {{ 7 * 7 }} 🎲 """
)
HOSTILE += "long" * 70
TRAINED = "<b>edm</b> & co"


def _score(value, name="frechet_distance", title="FD-toy", fingerprint="a" * 64, up=False):
    return ScoreRecord(
        name=name, title=title, value=value, error=0.1, interval=(value - 0.2, value + 0.2),
        count=100, higher_is_better=up, fingerprint=fingerprint,
        protocol={"quantisation": "round", "note": "</pre><b>x"}, key="0" * 64,
    )  # fmt: skip


def _record(cell, label, nfe, scores, sampler="heun"):
    return Record(
        suite="toy", suite_version=1, cell=cell, status="done", label=label, model="m/c", family="m",
        sampler={"name": sampler}, nfe=nfe, seed=0, images=100, shape=(1, 8, 8), scores=scores,
    )  # fmt: skip


def write_toy_results(root: Path) -> Path:
    """Fills `root`, a suite's results folder, and returns it."""
    for name in ("records", "samples", "training"):
        (root / name).mkdir(parents=True)

    def both(fd, precision):
        return [_score(fd), _score(precision, "precision", "precision", up=True)]

    rows = [
        _record("c1", "EDM", 1.0, both(90.0, 0.5)),
        _record("c2", "EDM", 4.0, both(9.0, 0.6)),
        _record("c3", "EDM", 64.0, both(2.0, 0.9)),
        _record("c4", HOSTILE, 1.0, both(2.1, 0.7), "onestep"),
        _record("c5", HOSTILE, 2.0, [_score(5.0, fingerprint="b" * 64)], "multistep"),
    ]
    speeds = {}
    for i, row in enumerate(rows):
        (root / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
        Image.new("L", (64, 64), 40 * i).save(root / "samples" / f"{row.cell}.png")
        speeds[row.cell] = {"seconds_per_image": 0.01 * (i + 1), "batch": 1, "device": "cpu"}
    (root / "speed.json").write_text(json.dumps(speeds))
    (root / "suite.yaml").write_text("suite: toy\ntitle: Toys </title><b>\n# </pre></template>\n")
    points = [TrainingPoint(step=i, images=64 * i, loss=1 / i) for i in range(1, 6)]
    chosen = {"cell": "c2", "label": "EDM", "nfe": 4, "score": "FD-toy", "tried": 3, "searched": 0}
    row = chosen | {"held_out": False, "gain": 0.85}
    (root / "selection.json").write_text(json.dumps([row]))
    log = TrainingLog(label=TRAINED, recipe="r", recipe_digest="d", points=points)
    (root / "training" / "one.json").write_text(log.model_dump_json())
    return root
