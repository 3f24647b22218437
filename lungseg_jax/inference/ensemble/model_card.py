"""The model card of a bundle: what the ensemble is, how good it is, how to use it.

Headings follow Mitchell et al., Model cards for model reporting, FAT* 2019,
arXiv:1810.03993; the first lines are metadata that the Hugging Face Hub reads.
"""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from lungseg_jax.metrics.registry import label_with_unit, summary_scores


def render_model_card(description: Mapping[str, Any]) -> str:
    """Render the card as Markdown.

    Args:
      description: the content of bundle.json.
    """
    data = description["data"]
    low, high = description["preprocessing"]["window_hu"]
    return f"""---
{_metadata(description)}---
# {description["name"]}

{_networks(description)} the lungs in axial CT slices. Trained with lungseg_jax
{description["versions"]["lungseg-jax"]}. **Not a medical device.**

{_use(description)}
## Input

{_domain(description["domain"])}, clipped to {low:g} to {high:g}.

## Training data

{data["variant"]} slices ({data["dtype"]}). Fingerprint `{data["fingerprint"]}`, a digest
of every file. The run's run.json has the names in each split and the digest of each file.

## Scores

{_scores(description["evaluation"])}

{_settings(description)}

## Limits

The scores hold for slices like the training data. The mask may be wrong for another
scanner or reconstruction, for children, and for images other than chest CT. Networks
trained without diseased lungs can miss a lung filled with dense tissue without a warning;
in volumes, asymmetry is flagged. Check masks before relying on them.

{_review(description["decision"])}

## Files

`sha256sum -c SHA256SUMS` verifies them. Reading them executes no code.
"""


def _use(description: Mapping[str, Any]) -> str:
    size = description["preprocessing"]["image_size"]
    low, high = description["preprocessing"]["window_hu"]
    return f"""## Use

    lungseg predict --run=THIS_FOLDER slice.tif mask.png
    lungseg predict --run=THIS_FOLDER scan.nii.gz lungs.nii.gz

In Python:

    import lungseg_jax as ls
    segmentation = ls.load("THIS_FOLDER")(image)  # .mask, .probability, .uncertainty

On the Hugging Face Hub, hf://ORG/NAME may be used for THIS_FOLDER.

Without lungseg_jax, after `pip install jax flatbuffers numpy`:

    import pathlib, jax, numpy as np
    program = jax.export.deserialize(pathlib.Path("program.stablehlo").read_bytes())
    {_input(description)}
    probability, mutual_information = program.call(images)
    mask = probability > {_threshold(description):.4g}

The program takes any number of slices of {size} x {size}. Clip a slice to {low:g} to
{high:g}, scale it by area interpolation so that its longer side is {size}, center it and
pad it with {low:g}. The program contains the networks, their mean and the temperature.
lungseg_jax also scales the probability to the size of the slice, bilinearly, and cleans
up the mask.
"""


def _metadata(description: Mapping[str, Any]) -> str:
    """The card's metadata as YAML."""
    metadata = {
        "license": description.get("license"),
        "library_name": "lungseg_jax",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "ct", "lung", "jax"],
        "datasets": description.get("datasets"),
        "model-index": _model_index(description),
    }
    stated = {key: value for key, value in metadata.items() if value}
    return yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)


def _model_index(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores, as the Hub lists them; empty if there are none."""
    evaluation, variant = description["evaluation"], description["data"]["variant"]
    if not evaluation:
        return []
    scores, unit = evaluation["ensemble"], evaluation["unit"]
    metrics = [
        {"type": s.key, "name": label_with_unit(s, unit), "value": round(value, 6)}
        for s in summary_scores()
        if (value := scores.get(s.key)) is not None
    ]
    split = evaluation["split"]
    dataset = {"name": f"{variant} slices, {split} split", "type": variant}
    result = {
        "task": {"type": "image-segmentation", "name": "lung segmentation"},
        "dataset": dataset | {"split": split},
        "metrics": metrics,
    }
    return [{"name": description["name"], "results": [result]}]


def _networks(description: Mapping[str, Any]) -> str:
    n, blocks = len(description["members"]), description["model"]["name"]
    if n == 1:
        return f"A U-Net with {blocks} blocks that segments"
    return f"An ensemble of {n} U-Nets with {blocks} blocks that segments"


def _input(description: Mapping[str, Any]) -> str:
    size = description["preprocessing"]["image_size"]
    if description["preprocessing"]["preprocessing"] == "seed":
        images = f"np.zeros((1, {size}, {size}, 3), np.float32)"
        return f"images = {images}  # preprocessed as in the notebooks"
    return f"images = np.full((1, {size}, {size}), -1000, np.float32)  # your slices"


def _threshold(description: Mapping[str, Any]) -> float:
    """Return the threshold of the program's output, which is calibrated.

    The threshold of the run applies to the mean before the temperature.
    """
    threshold = description["threshold"]
    temperature = description["decision"]["temperature"]
    if not 0 < threshold < 1:
        return threshold
    logit = math.log(threshold / (1 - threshold)) / temperature
    return 1 / (1 + math.exp(-logit))


def _domain(domain: str) -> str:
    labels = {"HU": "Hounsfield units", "8-bit": "Gray values from 0 to 255"}
    return labels.get(domain, f"Values of type {domain}")


def _scores(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "None: this combination of members was not scored."
    unit, over = evaluation["unit"], evaluation["intervals_over"]
    before = "" if evaluation.get("postprocessing", True) else ", before the clean-up"
    scores = evaluation["ensemble"]
    tolerance = f" NSD tolerates {evaluation['tolerance']:g} {unit}."
    return (
        f"{evaluation['n']} {evaluation['split']} slices from the distribution of the "
        f"training data (split seed {evaluation['split_seed']}) at full size, threshold "
        f"{evaluation['threshold']:g}{before}. Intervals are bootstrap intervals over "
        f"{over}.{tolerance if 'nsd_mean' in scores else ''}\n\n"
        f"{_score_table(scores, unit)}"
    )


def _score_table(scores: Mapping[str, Any], unit: str) -> str:
    lines = ["| score | value | 95% interval | meaning |", "|---|---|---|---|"]
    for score in summary_scores():
        value = scores.get(score.key)
        if value is None:
            continue
        low, high = scores.get(f"{score.key}_ci95") or (None, None)
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        label = label_with_unit(score, unit)
        lines.append(f"| {label} | {value:.4f} | {interval} | {score.meaning} |")
    return "\n".join(lines)


def _settings(description: Mapping[str, Any]) -> str:
    """Say which settings were tuned, and on what, and how masks are cleaned up."""
    tuning, settings = description["tuning"], description["decision"]
    n = tuning.get("n")
    clean_up = f'Clean-up of masks: "{settings["postprocessing"]}".'
    if n is None:
        return f"Nothing was tuned because training did not finish. {clean_up}"
    if not n:
        return f"Nothing was tuned because there was no validation split. {clean_up}"
    both = "" if settings["choice"] else "Both are those of all snapshots together. "
    return (
        f"Temperature {settings['temperature']:.3f} was fitted on {n} validation slices. "
        f"The review threshold, an expected IoU of {settings['review_below']:.3f}, was "
        f"chosen on {_reviewed(tuning)}. {both}{clean_up}"
    )


def _review(decision: Mapping[str, Any]) -> str:
    if decision["review_below"] is None:
        return "Slices are not flagged for their expected IoU: no limit was tuned."
    return "`review` in the output marks slices whose expected IoU is low."


def _reviewed(tuning: Mapping[str, Any]) -> str:
    """Name the slices that the review threshold was chosen on."""
    stressed = tuning.get("stressed")
    if stressed is None:  # of a version that did not count them
        return "the validation split"
    return f"them and {stressed} changed versions of them" if stressed else "them too"
