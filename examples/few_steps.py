"""Few-step generation on one screen: a diffusion model and its student at equal evaluations.

    python examples/few_steps.py                # minutes on two CPU cores, offline
    python examples/few_steps.py --count 1000   # narrower intervals

A diffusion model follows an ODE from noise to an image and needs tens of network evaluations
(NFE) per image. A consistency model, distilled from it, maps any point of a trajectory to its
end and needs one. Both start here from the same noise, so column i of the strip is image i.

Of the students that ship, only this one did not get worse from 2 evaluations to 35.
"""

import argparse
from pathlib import Path

import cmbench

MODELS = {
    "edm/cifar10_long": "dpmpp_2m",  # the teacher, under a solver that can spend any NFE
    "consistency/cifar10_cd_l2": "multistep",  # its student, by consistency distillation
}
EVALUATIONS = (1, 2, 35)
REFERENCE = Path(__file__).parents[1] / "suites/reference/cifar10_train.efficientnet_lite0.npz"


def main() -> None:
    """Samples, scores and draws each model at each number of evaluations."""
    options = parse_options()
    rows = []
    print(f"{'model':<32} {'NFE':>3}  {'FD-EffNet':>9}  95% interval")
    for name, sampler in MODELS.items():
        model = cmbench.load_model(name)
        for nfe in EVALUATIONS:
            samples = model.sample(options.count, nfe=nfe, sampler=sampler, seed=options.seed)
            scores = cmbench.evaluate(samples, reference=REFERENCE, metrics=["frechet_distance"])
            score = scores.loc["FD-EffNet"]
            interval = f"[{score.low:.0f}, {score.high:.0f}]"
            print(f"{name:<32} {samples.nfe:>3g}  {score.value:>9.0f}  {interval}", flush=True)
            rows.append(samples)
    cmbench.strip(rows).save(options.out)
    print(f"wrote {options.out}")


def parse_options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=250, help="images per model and NFE")
    parser.add_argument("--seed", type=int, default=0, help="seed of the starting noise")
    parser.add_argument("--out", type=Path, default=Path("few_steps.png"), help="the strip")
    return parser.parse_args()


if __name__ == "__main__":
    main()
