"""Statistics files: each format back and forth, and read by the peers that own it."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import reference_from_features
from cmbench.metrics.statistics.formats import FORMATS, open_statistics, save_statistics
from cmbench.metrics.statistics.frozen_graph import TensorFlowInception


def _reference(width: int = 6, spatial: bool = True):  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(0)
    layers = {"pool": draw.normal(size=(50, width)).astype(np.float32)}
    if spatial:
        layers["spatial"] = draw.normal(size=(50, 5)).astype(np.float32)
    return reference_from_features(Features(layers), "made")


@pytest.mark.parametrize("form", FORMATS)
def test_moments_come_back_from_every_format(form, tmp_path):
    reference = _reference()
    path = tmp_path / "s.npz"
    save_statistics(path, reference, form, made_of={"data": "x"}, keep=20)
    back = open_statistics(path)
    expected = reference.moments["pool"]
    loose = form in ("compact", "clean-fid")
    np.testing.assert_allclose(back.reference.moments["pool"].mean, expected.mean,
                               rtol=1e-6 if loose else 1e-12, atol=1e-7 if loose else 0)  # fmt: skip
    np.testing.assert_allclose(back.reference.moments["pool"].covariance, expected.covariance,
                               rtol=1e-6 if loose else 1e-12, atol=1e-7 if loose else 1e-12)  # fmt: skip
    assert back.reference.moments["pool"].count == 50
    assert ("spatial" in back.reference.moments) == (form in ("cmbench", "compact", "adm"))
    assert back.form.split(" (")[0] in (form, "mu, sigma")
    assert back.summary()["layers"]["pool"]["width"] == 6


def test_an_edm2_pickle_comes_back_and_runs_nothing(tmp_path):
    reference = _reference()
    save_statistics(tmp_path / "s.pkl", reference, "edm")
    held = pickle.loads((tmp_path / "s.pkl").read_bytes())
    assert sorted(held) == ["fid", "num_images"]
    back = open_statistics(tmp_path / "s.pkl").reference.moments["pool"]
    np.testing.assert_array_equal(back.covariance, reference.moments["pool"].covariance)
    assert back.count == 50

    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.system, (f"touch {tmp_path}/ran",)

    (tmp_path / "e.pkl").write_bytes(pickle.dumps({"fid": Evil()}))
    with pytest.raises(UserError, match="nothing was run"):
        open_statistics(tmp_path / "e.pkl")
    assert not (tmp_path / "ran").exists()


def test_peers_read_what_is_written(tmp_path):
    from pytorch_fid.fid_score import compute_statistics_of_path

    reference = _reference()
    expected = reference.moments["pool"]
    for form in ("pytorch-fid", "edm", "adm", "clean-fid"):
        save_statistics(tmp_path / "s.npz", reference, form)
        mean, covariance = compute_statistics_of_path(str(tmp_path / "s.npz"), None, 1, 6, "cpu")
        np.testing.assert_allclose(mean, expected.mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(covariance, expected.covariance)


def test_scores_against_a_converted_file_are_the_same(tmp_path):
    """pool_3 of score SDE, its moments for pytorch-fid, and EDM's pickle: one distance."""
    rows = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    save_statistics(tmp_path / "a.npz", _reference(spatial=False), "score-sde")
    runner = CliRunner()
    for source, target, form in (("a.npz", "b.npz", "pytorch-fid"), ("b.npz", "c.pkl", "edm"),
                                 ("c.pkl", "d.npz", "adm")):  # fmt: skip
        done = runner.invoke(
            app, ["stats", "convert", str(tmp_path / source), str(tmp_path / target), "--to", form]
        )
        assert done.exit_code == 0, done.output
    metric = create("metric", "frechet_distance")
    values = [
        metric.scores(
            Features({"pool": rows}), open_statistics(tmp_path / name).reference
        )["frechet_distance"].value
        for name in ("a.npz", "b.npz", "c.pkl", "d.npz")
    ]  # fmt: skip
    assert values[1:] == pytest.approx([values[0]] * 3, rel=1e-9)
    shown = runner.invoke(app, ["stats", "show", str(tmp_path / "d.npz")])
    assert "format   mu, sigma" in shown.output
    assert "width 6" in shown.output


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mu": np.zeros(3)}, "without the other"),
        ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, "don't fit"),
        ({"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "not finite"),
        ({"mu": np.array([None] * 3), "sigma": np.eye(3)}, "Python objects"),
        ({"other": np.zeros(3)}, "no statistics"),
        ({"pool_3": np.array([[1.0, np.inf], [0, 0]])}, "image 0 are not finite"),
    ],
)
def test_files_that_are_no_statistics_are_refused(arrays, said, tmp_path):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(UserError, match=said):
        open_statistics(tmp_path / "s.npz")


def test_moments_can_t_be_turned_into_activations(tmp_path):
    save_statistics(tmp_path / "m.npz", _reference(), "edm")
    with pytest.raises(UserError, match="raw activations"):
        save_statistics(tmp_path / "n.npz", open_statistics(tmp_path / "m.npz").reference,
                        "score-sde")  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["fid_stats.ema0.999", "fid_stats.ema0.9999", "plain", "a.NPZ"])
def test_a_name_is_never_cut_at_a_dot(form, name, tmp_path):
    written = save_statistics(tmp_path / name, _reference(), form, made_of={"data": "x"})
    expected = name if name.lower().endswith(".npz") else f"{name}.npz"
    assert written == tmp_path / expected
    assert [f.name for f in tmp_path.iterdir()] == [expected]
    assert open_statistics(written).reference.moments["pool"].count == 50


def convert(*arguments):
    return CliRunner().invoke(app, ["stats", "convert", *map(str, arguments)])


def test_a_conversion_writes_what_it_says_and_over_nothing(tmp_path):
    source, precious = tmp_path / "a.npz", tmp_path / "ref.npz"
    save_statistics(source, _reference(), "cmbench")
    precious.write_bytes(b"precious")
    done = convert(source, tmp_path / "ref.2024")
    assert done.exit_code == 0, done.output
    assert (
        f"{tmp_path / 'ref.2024.npz'}: pool, spatial (cmbench to pytorch-fid; features are not kept)"
        in done.output
    )
    assert precious.read_bytes() == b"precious"
    for again in (convert(source, tmp_path / "ref.2024"), convert(source, precious)):
        assert isinstance(again.exception, UserError)
        assert "--overwrite" in str(again.exception)
    assert precious.read_bytes() == b"precious"
    assert convert(source, precious, "--overwrite").exit_code == 0
    assert open_statistics(precious).reference.moments["pool"].count == 50


@pytest.mark.parametrize("name", ["a.npz", "link.npz", "a"])
def test_a_file_is_not_converted_onto_itself(tmp_path, name):
    source = tmp_path / "a.npz"
    save_statistics(source, _reference(), "cmbench")
    before = source.read_bytes()
    (tmp_path / "link.npz").symlink_to(source)
    done = convert(source, tmp_path / name, "--overwrite")
    assert "is the file that is converted" in str(done.exception)
    assert source.read_bytes() == before


@pytest.mark.parametrize("out", ["there.npz", "there", "folder.npz"])
def test_a_build_is_refused_before_it_computes(tmp_path, out, monkeypatch):
    (tmp_path / "there.npz").write_bytes(b"precious")
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.setattr("cmbench.external.build_statistics.dataset_of", None)
    done = CliRunner().invoke(app, ["stats", "build", "digits", "--features", "pixels", "-q",
                                    "--out", str(tmp_path / out)])  # fmt: skip
    assert isinstance(done.exception, UserError)
    assert (tmp_path / "there.npz").read_bytes() == b"precious"


def test_a_pickle_s_name_is_for_pickles(tmp_path):
    with pytest.raises(UserError, match="name of a pickle"):
        save_statistics(tmp_path / "a.pkl", _reference(), "adm")


@pytest.mark.parametrize("form", FORMATS)
def test_build_gives_the_moments_of_the_data(form, tmp_path):
    out = tmp_path / "s.npz"
    done = CliRunner().invoke(
        app, ["stats", "build", "digits:split=test", "--features", "pixels", "--format", form,
              "--out", str(out), "--batch", "50", "--images", "30", "-q", "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "359 images" in done.output
    images = create("dataset", {"name": "digits", "split": "test"}).open()
    rows = images.pixels(range(359)).reshape(359, -1) / 255
    held = open_statistics(out)
    moments = held.reference.moments["pool"]
    np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-7)
    np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), atol=1e-7)
    if form == "adm":
        assert held.images == (30, 8, 8, 1)
    if form == "compact":
        assert held.made_of["data"] == images.fingerprint()
        # A suite takes it: the plan compares these fields.
        assert held.made_of["extractor"] == {"name": "pixels"}


def test_a_drawn_count_is_the_seed_s(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        CliRunner().invoke(
            app, ["stats", "build", "digits", "--features", "pixels", "--count", "100", "--seed",
                  str(seed), "--out", str(tmp_path / f"{name}.npz"), "-q"],
        )  # fmt: skip
    a, b, c = (open_statistics(tmp_path / f"{n}.npz").reference.moments["pool"] for n in "abc")
    np.testing.assert_array_equal(a.mean, b.mean)
    assert not np.array_equal(a.mean, c.mean)
    assert a.count == 100


def test_tensorflow_that_is_not_here_waits(tmp_path, monkeypatch):
    monkeypatch.delenv("CMBENCH_INCEPTION_GRAPH", raising=False)
    with pytest.raises(Pending, match="cmbench assets fetch inception-2015-12-05-tensorflow"):
        TensorFlowInception()
    (tmp_path / "g.pb").write_bytes(b"")
    (tmp_path / "tensorflow.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Pending, match="needs tensorflow"), TensorFlowInception(tmp_path / "g.pb"):
        pass


@pytest.fixture
def tensorflow_python() -> str:
    """A Python with TensorFlow: this one, or the one that CMBENCH_TENSORFLOW_PYTHON names."""
    python = os.environ.get("CMBENCH_TENSORFLOW_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import tensorflow"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("no TensorFlow; CMBENCH_TENSORFLOW_PYTHON may name a Python that has it")
    return python


_GRAPH = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf
tf.disable_eager_execution()
draw = np.random.default_rng(0)
path, kernel, weight = sys.argv[1], draw.normal(size=(3, 3, 3, 12)) / 5, draw.normal(size=(12, 7))
np.savez(path + ".npz", kernel=kernel, weight=weight)
raw = tf.placeholder(tf.float32, [None, None, 3], name="DecodeJpeg")
x = tf.expand_dims(raw, 0, name="ExpandDims")
x = tf.raw_ops.ResizeBilinear(images=x, size=[19, 19], name="ResizeBilinear")
x = tf.multiply(tf.subtract(x, 128.0, name="Sub"), 0.0078125, name="Mul")
x = tf.nn.conv2d(x, tf.constant(kernel, tf.float32), 1, "VALID", name="mixed_6/conv_in")
x = tf.nn.relu(x, name="mixed_6/conv")
pool = tf.reduce_mean(x, [1, 2], keepdims=True, name="pool_3")
flat = tf.reshape(pool, [-1, 12], name="softmax/logits/flat")
tf.add(tf.matmul(flat, tf.constant(weight, tf.float32), name="softmax/logits/MatMul"), 1.0,
       name="softmax/logits")
open(path, "wb").write(tf.get_default_graph().as_graph_def().SerializeToString())
"""


@pytest.mark.slow
def test_the_tensorflow_graph_gives_its_own_layers(tensorflow_python, tmp_path, monkeypatch):
    """A frozen graph with the official names; its arithmetic again in NumPy."""
    from scipy.signal import correlate

    graph = tmp_path / "graph.pb"
    subprocess.run([tensorflow_python, "-c", _GRAPH, str(graph)], check=True, capture_output=True)
    with np.load(f"{graph}.npz") as held:
        kernel, weight = held["kernel"], held["weight"]
    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    with TensorFlowInception(graph, tensorflow_python) as net:
        layers = net(pixels)
        again = net(pixels[2:3])
    place = np.arange(19) * (8 / 19)
    low = np.floor(place).astype(int)
    matrix = np.zeros((19, 8))
    matrix[np.arange(19), low] += 1 - (place - low)
    matrix[np.arange(19), np.minimum(low + 1, 7)] += place - low
    resized = (np.einsum("ah,nchw,bw->ncab", matrix, pixels.astype(float), matrix) - 128) / 128
    maps = np.stack(
        [[sum(correlate(image[c], kernel[:, :, c, o], "valid") for c in range(3))
          for o in range(12)] for image in resized]
    ).clip(0)  # fmt: skip
    np.testing.assert_allclose(layers["pool"], maps.mean((2, 3)), atol=1e-5)
    np.testing.assert_allclose(layers["logits"], maps.mean((2, 3)) @ weight, atol=1e-4)
    spatial = maps[:, :7].transpose(0, 2, 3, 1).reshape(5, -1)
    np.testing.assert_allclose(layers["spatial"], spatial, atol=1e-5)
    np.testing.assert_allclose(again["pool"], layers["pool"][2:3], atol=1e-6)

    out = tmp_path / "adm.npz"
    done = CliRunner().invoke(
        app, ["stats", "build", "digits:split=test", "--backend", "tensorflow", "--graph",
              str(graph), "--python", tensorflow_python, "--format", "adm", "--images", "10",
              "--out", str(out), "-q"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    shown = json.loads(CliRunner().invoke(app, ["stats", "show", str(out), "--json"]).output)
    assert shown["layers"]["pool"]["width"] == 12
    assert shown["layers"]["spatial"]["count"] == 359

    (tmp_path / "bad.pb").write_bytes(b"not a graph")
    with pytest.raises(UserError, match="not the Inception graph"), \
            TensorFlowInception(tmp_path / "bad.pb", tensorflow_python):  # fmt: skip
        pass
