"""What a prediction can write, and do to masks, by name; light, for the command line."""

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

# Share of the largest component. True masks have specks up to 0.33 %, then one piece of
# 1.3 %; all others, lobes and lungs, have 21 % or more.
ISLAND = 0.01
# Share of the lung. 90 of the 198 true holes are smaller, 0.005 % of the lung in total.
HOLE = 0.001

POSTPROCESSING = {  # clean-up of masks, simplest first
    "none": "the mask as the threshold gives it",
    "fill_holes": f"fills holes smaller than {HOLE:.1%} of the lung",
    "drop_islands": f"drops components smaller than {ISLAND:.0%} of the largest",
    "two_largest": "keeps the two largest components, and those of equal size",
    "drop_islands+fill_holes": "both, islands first",
    "drop_fluid": "drops what is as dense as water: pleural fluid",
    "drop_fluid+drop_islands+fill_holes": "all three, fluid first",
    "two_largest+fill_holes": "both, components first",
}
