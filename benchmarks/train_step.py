"""Time one update of the network: ours, and the same in Keras and PyTorch.

    pip install -e ".[bench]"
    python benchmarks/train_step.py                               # inception, 8 x 256
    python benchmarks/train_step.py --model=conv --size=512 --batch=2 --json=step.json
    python benchmarks/train_step.py --dtype=bfloat16 --size=512 --batch=32   # on a GPU

Shapes, loss (cross-entropy and Dice), optimizer (AdamW) and dtype are the same. Prints
medians, ratios to ours, the peak memory of each process and the time of its first call.
Libraries that are not installed are skipped.
"""

import turns


def build(module, args):
    return module.train_step(args.model, *turns.examples(args), args.dtype)


if __name__ == "__main__":
    turns.race(turns.parser(__doc__).parse_args(), "step", build)
