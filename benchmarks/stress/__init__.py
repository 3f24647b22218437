"""Changes of labelled chest slices that show where a segmentation breaks.

They are kept apart from training: nothing here imports `lungseg_jax`, and training imports
nothing from here. A network that was trained on this project's augmentation is therefore
tested on changes that were written independently of it.
"""
