"""What no run could do, or what would be ignored, is refused by the plan: file, line, key."""

import re

import numpy as np
import pytest

from cmbench.core.errors import UserError
from cmbench.core.yaml_source import parse_value
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import find_suite, read_suite

GOOD = """\
suite: tiny
dataset: digits
images: {count: 24, shard: 8}
features: [pixels]
metrics: [frechet_distance, {name: precision_recall, k: 3}]
reference: {count: 200}
runs:
  - model: oracle/gaussian
    label: G {sampler}
    sampler: [heun, euler]
    nfe: [1, 3]
  - model: oracle/consistency
    label: C
    sampler: {name: multistep, sigmas: [3.0, 0.5]}
findings:
  - claim: More evaluations are better
    better: {label: G heun, nfe: 3}
    worse: {label: G heun, nfe: 1}
"""


def plan(folder, text=GOOD):
    path = folder / "tiny.yaml"
    path.write_text(text)
    return make_plan(*read_suite(str(path)))


def test_the_suite_itself_plans(tmp_path):
    assert {cell.label for cell in plan(tmp_path).cells} == {"G heun", "G euler", "C"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[pixels]", "[pixels, nonsense]", r":4: features\[1\]: no features named 'nonsense'"),
        ("[pixels]", "[pixels, digits_classifier]", r":4: features\[1\]: no metric uses"),
        ("shard: 8", "shard: 8, seeds: -1", r":3: images\.seeds: .*greater than or equal to 0"),
        ("shard: 8", "shard: 8, seeds: [9223372036854775808]", r":3: .*less than or equal to 9223"),
        ("shard: 8", "shard: 8, seeds: 1.0e+25", r":3: images\.seeds: "),
        ("count: 24", "count: 10000000", r":3: images: .*in shards of 8 are over 20000 jobs"),
        ("count: 24", "count: 2000000000", r":3: images\.count: .*less than or equal to 10000000"),
        ("count: 200", "count: 100000", r":6: reference\.count: .*has 1,438 images"),
        ("k: 3", "k: 24", r":5: metrics\[1\]: .*at least 25 images per cell"),
        ("k: 3", "k: 30", r"at least 31 images"),
        ("k: 3", "features: nonsense", r":5: metrics\[1\]\.features: no features named 'nonsense'"),
        ("count: 200", "count: 3", r":5: metrics\[1\]: .*at least 4 reference images, there are 3"),
        ("[heun, euler]", "[]", r":10: runs\[0\]\.sampler: .*at least 1 item"),
        ("nfe: [1, 3]", "nfe: [1000000000]", r":11: runs\[0\]\.nfe: .*at most 10000"),
        ("nfe: [1, 3]", "steps: [1000000000]", r":11: runs\[0\]\.steps: .*at most 10000"),
        ("[heun, euler]", "[{name: heun, rho: .inf}]", r":10: .*finite number \(got inf\)"),
        ("[heun, euler]", "[{name: heun, steps: 1000000000}]", r":10: .*less than or equal to 10000"),
        ("sigmas: [3.0, 0.5]", "indices: []", r":14: .*indices: .*at least 2 items"),
        ("[3.0, 0.5]", "[0.5, 3.0]", r":14: .*must fall from each to the next"),
        ("[3.0, 0.5]", "[80, 0.66, 0.66]", r":14: .*must fall"),
        ("label: C", 'label: "{sampler.x}"', r":13: runs\[1\]\.label: label '.*' has an unknown placeholder '\{sampl"),
        ("label: C", 'label: "{model[a]}"', r":13: .*unknown placeholder '\{model\[a\]\}'"),
        ("label: C", 'label: "{model:>9999999999}"', r":13: .*has an unknown placeholder"),
        ("label: C", 'label: "{samplr}"', r":13: .*did you mean '\{sampler\}'"),
        ("label: C", f"label: {'x' * 300}", r":13: runs\[1\]\.label: .*at most 200 characters"),
        ("label: G {sampler}", "label: G", r"a finding is about 'G heun', which no run is called"),
        ("G heun, nfe: 3", "G huen, nfe: 3", r":17: findings\[0\]\.better\.label: .*did you mean 'G heun'"),
        ("G heun, nfe: 3", "G heun, nfe: 5", r":17: .*5 evaluations, which no cell of these labels spends(?s:.*)1, 3"),
        ("  - claim: More", "  - score: fid\n    claim: More", r":16: findings\[0\]\.score: a finding is about score 'fid', which no cell has"),
        ("dataset: digits", "dataset: {name: digits, splt: test}", r":2: .*did you mean 'split'"),
        ("dataset: digits", "dataset: {name: images, path: ~nosuchuser/x}", r":\d+: .*no home folder"),
        ("dataset: digits", f"dataset: {'x' * 300}", r":2: dataset: .*no name of a dataset"),
        ("  - model: oracle/gaussian", f"  - model: {'x' * 300}", r":8: runs\[0\]\.model: .*not a model"),
        ("label: C", f"label: C\n    weights: {'x' * 300}", r":\d+: .*is no path"),
        ("label: C", "label: C\n    weights: ~nosuchuser/w", r":\d+: .*no home folder of ~nosuchuser"),
        ("label: C", "label: C\n    weights: w\n    train: {seed: 1}", r"weights or train, not both"),
        ("suite: tiny", f"suite: {'x' * 300}", r":1: suite: .*at most 100 characters"),
        ("suite: tiny", 'suite: tiny\ntitle: "\\uD800"', r":2: .*control character U\+D800"),
        ("reference: {count: 200}", "reference: {files: {inception: x.npz}}", r":6: .*no metric uses"),
        ("suite: tiny", "suite: tiny\ndecoys: [real, real]", r"two cells are the same work"),
    ],
)  # fmt: skip
def test_a_value_is_refused_where_it_stands(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(UserError, match=message) as told:
        plan(tmp_path, GOOD.replace(old, new, 1))
    assert re.match(r"\S*tiny\.yaml:\d+", told.value.where)


TRAINED = """\
suite: tiny
dataset: digits
images: {count: 24}
features: pixels
metrics: [frechet_distance]
runs:
  - model: edm/digits
    label: E {seed}
    nfe: [1]
    train:
      seed: [0, 1]
      KEY
"""


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("images: []", r":10: runs\[0\]\.train: an empty list for images"),
        ("images.x: 1", r":12: runs\[0\]\.train\.images\.x: images is 128000, which holds no key"),
        ("no.such.key: 1", r":12: .*a recipe has no key 'no'"),
        ("optimiser.lr: .inf", r":12: .*train\.optimiser\.lr: .*finite"),
        ("model.network.channels: [[8, 0]]", r":12: .*channels\.1: .*greater than or equal to 1"),
        ("model.network.unshuffle: 3", r":12: .*image side 8 is not divisible by 6"),
        ("model.shape: [[0, 8, 8]]", r":12: .*shape\.0: .*greater than or equal to 1"),
        ("optimiser.betas: [[0.9, 1.0]]", r":12: .*betas\.1: .*less than 1"),
        ("distance: nonsense", r":12: .*no distance named 'nonsense'"),
        ("seed: 1", r":12: key 'seed' stands twice"),
    ],
)
def test_an_override_is_refused_where_it_stands(tmp_path, key, message):
    with pytest.raises(UserError, match=message):
        plan(tmp_path, TRAINED.replace("KEY", key))


def test_dotted_keys_are_filled_into_labels(tmp_path):
    text = TRAINED.replace("E {seed}", "E {optimiser.lr} {{x}} {seed}")
    made = plan(tmp_path, text.replace("KEY", "optimiser.lr: 1.0e-3"))
    assert [cell.label for cell in made.cells] == ["E 0.001 {x} 0", "E 0.001 {x} 1"]


def test_axes_that_multiply_beyond_use_are_refused(tmp_path):
    axes = "\n      ".join(f"{key}: [{', '.join(map(str, range(1, 60)))}]"
                           for key in ("batch", "log_every", "optimiser.warmup_images"))  # fmt: skip
    with pytest.raises(UserError, match=r":10: runs\[0\]\.train: .*make 410,758 networks"):
        plan(tmp_path, TRAINED.replace("KEY", axes))


def test_a_model_of_another_shape_than_the_data_is_refused(tmp_path):
    np.savez(tmp_path / "wide.npz", images=np.zeros((30, 3, 16, 16), np.uint8))
    for dataset in ("cifar10", f"{{name: images, path: {tmp_path}/wide.npz}}"):
        text = GOOD.replace("dataset: digits", f"dataset: {dataset}").replace("{count: 200}", "{}")
        with pytest.raises(
            UserError, match=r":8: .*images of 1x8x8, the suite's dataset holds imag"
        ):
            plan(tmp_path, text)


def test_a_network_that_can_t_be_built_is_refused_in_its_recipe(tmp_path):
    from cmbench.train.recipe import read_recipe

    recipe = """\
recipe: edm/tiny
model:
  name: edm
  shape: [1, 8, 8]
  network: {name: compact_unet, channels: [8, 8, 8, 8], VALUE}
dataset: digits
objective: edm
images: 64
"""
    for value, message in (
        ("unshuffle: 2", r":5: model\.network: .*image side 8 is not divisible by 16"),
        ("embedding: .inf", r":2: model: .*network holds a number that is not finite"),
        ("widht: 3", r":5: model\.network\.widht: .*unknown key 'widht'"),
        ("blocks: 100000", r":5: model\.network\.blocks: .*less than or equal to 256"),
    ):
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.replace("VALUE", value))
        with pytest.raises(UserError, match=message):
            read_recipe(path)


def test_names_and_values_on_the_command_line_are_read_by_the_same_rules():
    assert parse_value("[1, 2]", "--metrics") == [1, 2]
    with pytest.raises(UserError, match=r"^--metrics kid:subsets=\[1: not valid YAML"):
        parse_value("[1", "--metrics kid:subsets=[1")
    for name in ("~nosuchuser/x", "x" * 300, "../x", "\0"):
        with pytest.raises(UserError):
            find_suite(name)
