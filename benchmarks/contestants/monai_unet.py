"""MONAI's residual U-Net, trained on the same arrays for a given time."""

import math
import time

import monai
import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from tqdm import tqdm

from contestants.torch_unet import DEVICE, bce_dice

LABEL = f"MONAI {monai.__version__} UNet (torch {torch.__version__.split('+')[0]})"
PEAK, WEIGHT_DECAY = 2e-3, 1e-4
AUGMENTATION = ("zoom", "shift", "rotation_deg", "flip_lr", "flip_ud")


def train(images, masks, *, seconds, batch_size, seed, augmentation):
    """Train on images `[n s s 1]` and masks `[n s s]`.

    The optimizer is AdamW with one cosine decay over the given time.

    Args:
      images, masks: the training split.
      seconds: the time to train for.
      batch_size: slices per update.
      seed: of weights, order and augmentation.
      augmentation: the value of each knob in AUGMENTATION.

    Returns:
      `predict(images [b s s 1]) -> probabilities [b s s]`, and the number of updates.
    """
    torch.manual_seed(seed)
    network = UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm="batch",
    ).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK, weight_decay=WEIGHT_DECAY)
    pairs = torch.cat([_to_torch(images), _to_torch(masks[..., None])], dim=1)
    start, steps = time.perf_counter(), 0
    with tqdm(desc="MONAI", unit="step") as bar:
        while (done := (time.perf_counter() - start) / seconds) < 1:
            if steps * batch_size % (len(pairs) // batch_size * batch_size) == 0:
                order = torch.randperm(len(pairs))
            at = steps * batch_size % (len(pairs) // batch_size * batch_size)
            batch = _augment(pairs[order[at : at + batch_size]], **augmentation)
            optimizer.param_groups[0]["lr"] = PEAK * (1 + math.cos(math.pi * done)) / 2
            optimizer.zero_grad(set_to_none=True)
            inputs = batch[:, :1].contiguous(memory_format=torch.channels_last)
            bce_dice(network(inputs)[:, 0], batch[:, 1]).mean().backward()
            optimizer.step()
            steps += 1
            bar.update()
    network.eval()

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return torch.sigmoid(network(_to_torch(images))[:, 0]).cpu().numpy()

    return predict, steps


def _to_torch(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(DEVICE)


def _augment(pairs, *, zoom, shift, rotation_deg, flip_lr, flip_ud):
    """Apply a random affine map per example, as ours in version 0.1."""
    n = len(pairs)

    def draw(*shape):
        return 2 * torch.rand(*shape) - 1

    angle = torch.deg2rad(rotation_deg * draw(n))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).reshape(n, 2, 2)
    mirrored = torch.randint(2, (n, 1, 2)) * torch.tensor([flip_lr, flip_ud])
    scale = (1 + zoom * draw(n, 1, 2)) * (1 - 2 * mirrored)
    matrix = torch.cat([rotation * scale, 2 * shift * draw(n, 2, 1)], dim=2)
    grid = F.affine_grid(matrix, pairs.shape, align_corners=False).to(pairs.device)
    return F.grid_sample(pairs, grid, padding_mode="border", align_corners=False)
