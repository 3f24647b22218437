"""What a prediction can write, by name; light, as the command line names it."""

from lungseg_jax.data.io.segments import LEFT_LUNG, LUNG, RIGHT_LUNG

MAPS = {  # fields of a `Segmentation` that can be saved beside a mask, as float32
    "probability": "calibrated probability of lung",
    "uncertainty": "entropy of the probability, in bits",
    "mutual_information": "disagreement of the members, in bits",
}
LABELS = {  # the segments of the masks of volumes
    "lung": (LUNG,),
    "sides": (RIGHT_LUNG, LEFT_LUNG),
}
