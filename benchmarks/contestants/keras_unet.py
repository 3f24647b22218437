"""The same networks in Keras, on TensorFlow if it is installed and else on JAX."""

import importlib.util
import os

if "KERAS_BACKEND" not in os.environ:
    has_tensorflow = importlib.util.find_spec("tensorflow")
    os.environ["KERAS_BACKEND"] = "tensorflow" if has_tensorflow else "jax"

import keras  # noqa: E402  (it reads the variable above)
import numpy as np  # noqa: E402
from keras import layers, ops  # noqa: E402

LABEL = f"keras {keras.__version__} ({keras.backend.backend()})"


def unet(name, *, kernel_size=3, channels=1, size=None, init="glorot_normal"):
    """Build the notebooks' network, with layers `<level>.<unit>.conv` and `.norm`."""

    def unit(x, filters, kernel, label):
        x = layers.Conv2D(
            filters,
            kernel,
            padding="same",
            kernel_initializer=init,
            name=f"{label}.conv",
        )(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{label}.norm")(x)
        return layers.LeakyReLU(negative_slope=0.3)(x)

    def conv_level(x, f, label):
        return unit(x, 4 * f, kernel_size, f"{label}.layer")

    def inception_level(x, f, label):
        deep = unit(x, f, 1, f"{label}.stem_deep")
        deep = unit(deep, f, 3, f"{label}.deep_1")
        deep = unit(deep, f, 3, f"{label}.deep_2")
        middle = unit(x, f, 1, f"{label}.stem_middle")
        middle = unit(middle, f, 3, f"{label}.middle")
        point = unit(x, f, 1, f"{label}.stem_point")
        pooled = layers.MaxPooling2D(2, strides=1, padding="same")(x)
        pooled = unit(pooled, f, 1, f"{label}.pooled")
        return layers.Concatenate()([deep, middle, point, pooled])

    level = {"conv": conv_level, "inception": inception_level}[name]

    def up(x, skip):
        return layers.Concatenate()([layers.UpSampling2D(2)(x), skip])

    inputs = keras.Input((size, size, channels))
    full = level(inputs, 8, "down_1")
    half = layers.MaxPooling2D(2)(full)
    quarter = layers.MaxPooling2D(2)(level(half, 16, "down_2"))
    eighth = layers.MaxPooling2D(2)(level(quarter, 32, "down_3"))
    x = layers.MaxPooling2D(2)(level(eighth, 64, "down_4"))
    x = up(level(x, 64, "up_1"), eighth)
    x = up(level(x, 32, "up_2"), quarter)
    x = up(level(x, 16, "up_3"), half)
    x = up(level(x, 8, "up_4"), full)
    head = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="head")
    return keras.Model(inputs, head(x))


def bce_dice(masks, probabilities):
    overlap = ops.sum(probabilities * masks, axis=(1, 2, 3))
    total = ops.sum(probabilities, axis=(1, 2, 3)) + ops.sum(masks, axis=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    bce = ops.mean(ops.binary_crossentropy(masks, probabilities), axis=(1, 2, 3))
    return bce + dice


def train_step(model, images, masks, dtype):
    _set_dtype(dtype)
    network = unet(model, size=images.shape[1])
    network.compile(optimizer=keras.optimizers.AdamW(1e-3, 1e-4), loss=bce_dice)
    masks = masks[..., None]
    return lambda: float(network.train_on_batch(images, masks))


def predict(model, images, dtype, members):
    _set_dtype(dtype)
    networks = [unet(model, size=images.shape[1]) for _ in range(members)]
    batch = len(images)
    for network in networks:
        network.compile()
    return lambda: np.stack([n.predict_on_batch(images[:batch]) for n in networks])


def wait(result):
    """Keras returns arrays of NumPy, which are there."""


def device_memory():
    """Return None: it depends on the library that Keras runs on."""


def _set_dtype(dtype):
    if dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
