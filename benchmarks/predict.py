"""Time the probabilities of one network or an ensemble: ours, Keras, PyTorch.

    pip install -e ".[bench]"
    python benchmarks/predict.py                            # inception, 8 x 256
    python benchmarks/predict.py --members=3 --size=512 --batch=1

Prints medians, ratios to ours, the peak memory of each process and the time of its first
call.
"""

import turns


def build(module, args):
    images, _ = turns.examples(args)
    return module.predict(args.model, images, args.dtype, args.members)


if __name__ == "__main__":
    parser = turns.parser(__doc__)
    parser.add_argument("--members", type=int, default=1)
    turns.race(parser.parse_args(), "predict", build)
