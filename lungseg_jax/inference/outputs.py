"""What a prediction can write, by name; light, as the command line names it."""

MAPS = {  # fields of a `Segmentation` that can be saved beside a mask, as float32
    "probability": "calibrated probability of lung",
    "uncertainty": "entropy of the probability, in bits",
    "mutual_information": "disagreement of the members, in bits",
}
LABELS = {  # values of the masks of volumes
    "lung": "1 for lung",
    "sides": "1 for the right lung, 2 for the left one",
}
