"""The README.md of a bundle: what the ensemble is, how good it is, how it is used.

Headings follow Mitchell et al., Model cards for model reporting, FAT* 2019,
arXiv:1810.03993; the first lines are what model hubs read.
"""

import math
from collections.abc import Mapping
from typing import Any

SCORES = {
    "iou_pooled": "pooled IoU",
    "iou_mean": "IoU, mean over slices",
    "dice_mean": "Dice, mean over slices",
    "nsd_mean": "NSD, mean over slices",
    "hd95_mean": "HD95, mean over slices",
}


def render_model_card(description: Mapping[str, Any]) -> str:
    """The card, as Markdown.

    Args:
      description: the content of bundle.json.
    """
    data = description["data"]
    size = description["preprocessing"]["image_size"]
    low, high = description["preprocessing"]["window_hu"]
    return f"""---
library_name: lungseg_jax
tags: [image-segmentation, medical, ct, lung, jax]
---
# {description["name"]}

{_networks(description)} the lungs in axial CT slices. Trained by lungseg_jax
{description["versions"]["lungseg-jax"]}. **Not a medical device.**

## Use

    lungseg predict --run=THIS_FOLDER slice.tif mask.png
    lungseg predict --run=THIS_FOLDER scan.nii.gz lungs.nii.gz

or in Python:

    from lungseg_jax.inference.segmenter import LungSegmenter
    found = load("THIS_FOLDER")(image)  # mask, probability, uncertainty

Without lungseg_jax, by `pip install jax flatbuffers numpy` alone:

    import pathlib, jax, numpy as np
    program = jax.export.deserialize(pathlib.Path("program.stablehlo").read_bytes())
    {_input(description)}
    probability, mutual_information = program.call(images)
    mask = probability > {_threshold(description):.4g}

The program takes any number of slices of {size} x {size}. Clip a slice to {low:g} to
{high:g}, scale it by areas so that its longer side is {size}, centre it and fill the
rest with {low:g}. It is the networks, their mean and the temperature; lungseg_jax then
scales the probability to the size of the slice, bilinearly, and cleans the mask.

## Input

{_domain(description["domain"])}, clipped to {low:g} to {high:g}.

## Training data

{data["variant"]} slices ({data["dtype"]}), fingerprint `{data["fingerprint"]}`: a digest
of every file. The split by name and the digest of each file stand in the run's run.json.

## Scores

{_scores(description["evaluation"])}

{_decision(description)}

## Limits

The scores hold for slices like those of the training. Another scanner or reconstruction,
children, or images that are no chest CT may give a wrong mask. `review` in the output marks
slices of low expected IoU: it finds images of poor quality, and not a lung that is filled
with dense tissue, which can be missing from the mask without a sign. Check masks before
relying on them.

## Files

`sha256sum -c SHA256SUMS` checks them. Nothing here is executed when it is read.
"""


def _networks(description: Mapping[str, Any]) -> str:
    n, kind = len(description["members"]), description["model"]["name"]
    if n == 1:
        return f"A U-Net with {kind} blocks that finds"
    return f"{n} U-Nets with {kind} blocks, used as an ensemble, that find"


def _threshold(description: Mapping[str, Any]) -> float:
    """That of the run is one of the mean before the temperature."""
    threshold, temperature = (
        description["threshold"],
        description["decision"]["temperature"],
    )
    if not 0 < threshold < 1:
        return threshold
    logit = math.log(threshold / (1 - threshold)) / temperature
    return 1 / (1 + math.exp(-logit))


def _decision(description: Mapping[str, Any]) -> str:
    n, decision = description["tuning"].get("n"), description["decision"]
    if n is None:
        return "Nothing was tuned: the training was not finished."
    if not n:
        return "Nothing was tuned: the training had no validation slices."
    for_all = "" if decision["choice"] else " for all snapshots of the run together"
    return (
        f"Temperature {decision['temperature']:.3f}, clean-up "
        f'"{decision["postprocessing"]}" and the limit of `review`, an expected IoU of '
        f"{decision['review_below']:.3f}, were chosen on {n} validation slices{for_all}."
    )


def _domain(domain: str) -> str:
    return {"HU": "Hounsfield units", "8-bit": "Gray values, 0 to 255"}.get(
        domain, f"Values of the kind {domain}"
    )


def _input(description: Mapping[str, Any]) -> str:
    size = description["preprocessing"]["image_size"]
    if description["preprocessing"]["preprocessing"] == "seed":
        return f"images = np.zeros((1, {size}, {size}, 3), np.float32)  # as the notebooks'"
    return f"images = np.full((1, {size}, {size}), -1000, np.float32)  # your slices"


def _scores(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "None: these members were not scored together as they are here."
    scores = evaluation["ensemble"]
    rows = []
    for key, label in SCORES.items():
        low, high = scores.get(f"{key}_ci95") or (None, None)
        unit = f" {evaluation['unit']}" if key.startswith("hd95") else ""
        if scores.get(key) is not None:
            interval = "" if low is None else f"{low:.4f} to {high:.4f}"
            rows.append(f"| {label} | {scores[key]:.4f}{unit} | {interval} |")
    table = "\n".join(["| score | value | 95 % interval |", "|---|---|---|", *rows])
    n, split, seed = evaluation["n"], evaluation["split"], evaluation["split_seed"]
    return (
        f"{n} {split} slices of the training data's own distribution (split seed {seed}), "
        f"threshold {evaluation['threshold']:g}, at their own size; intervals are a "
        f"bootstrap over {evaluation['intervals_over']}. NSD at "
        f"{evaluation['tolerance']:g} {evaluation['unit']}.\n\n{table}"
    )
