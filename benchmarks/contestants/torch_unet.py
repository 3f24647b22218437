"""The same networks in PyTorch: channels last, and compiled if that is faster."""

import functools
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

LABEL = f"torch {torch.__version__.split('+')[0]}"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.benchmark = True  # try every convolution, as XLA does
CALLS = 10 if DEVICE == "cuda" else 2


class Unit(nn.Sequential):
    def __init__(self, inputs, outputs, kernel):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding="same"),
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.LeakyReLU(0.3),
        )
        nn.init.xavier_normal_(self[0].weight)
        nn.init.zeros_(self[0].bias)


class Inception(nn.Module):
    def __init__(self, inputs, f):
        super().__init__()
        self.deep = nn.Sequential(Unit(inputs, f, 1), Unit(f, f, 3), Unit(f, f, 3))
        self.middle = nn.Sequential(Unit(inputs, f, 1), Unit(f, f, 3))
        self.point, self.pooled = Unit(inputs, f, 1), Unit(inputs, f, 1)

    def forward(self, x):
        pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, stride=1)
        branches = self.deep(x), self.middle(x), self.point(x), self.pooled(pooled)
        return torch.cat(branches, dim=1)


def conv_level(inputs, f):
    return Unit(inputs, 4 * f, 3)


class UNet(nn.Module):
    def __init__(self, name):
        super().__init__()
        level = {"conv": conv_level, "inception": Inception}[name]
        down, up = (1, 32, 64, 128), (256, 256 + 128, 128 + 64, 64 + 32)
        self.down = nn.ModuleList(
            level(i, f) for i, f in zip(down, (8, 16, 32, 64), strict=True)
        )
        self.up = nn.ModuleList(
            level(i, f) for i, f in zip(up, (64, 32, 16, 8), strict=True)
        )
        self.head = nn.Conv2d(64, 1, 3, padding="same")

    def forward(self, x):
        skips = []
        for i, level in enumerate(self.down):
            x = level(x)
            if i == 0:
                skips.append(x)
            x = F.max_pool2d(x, 2)
            if i < 3:
                skips.append(x)
        for level in self.up:
            x = F.interpolate(level(x), scale_factor=2, mode="nearest")
            x = torch.cat([x, skips.pop()], dim=1)
        return self.head(x)[:, 0]


def bce_dice(logits, masks):
    logits = logits.float()
    p = torch.sigmoid(logits)
    overlap, total = (p * masks).sum((1, 2)), p.sum((1, 2)) + masks.sum((1, 2))
    bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return bce.mean((1, 2)) + 1 - (2 * overlap + 1) / (total + 1)


def train_step(model, images, masks, dtype):
    images, masks = _on_device(images), torch.from_numpy(masks).to(DEVICE)

    def build(compiled):
        network = UNet(model).to(DEVICE, memory_format=torch.channels_last).train()
        tx = torch.optim.AdamW(
            network.parameters(), 1e-3, weight_decay=1e-4, fused=DEVICE == "cuda"
        )

        @compiled
        def mean_loss():
            with _autocast(dtype):
                logits = network(images)
            return bce_dice(logits, masks).mean()

        def call():
            tx.zero_grad(set_to_none=True)
            loss = mean_loss()
            loss.backward()
            tx.step()
            return loss

        return call

    return _fastest(build)


def predict(model, images, dtype, members):
    images = _on_device(images)

    def build(compiled):
        networks = [
            UNet(model).to(DEVICE, memory_format=torch.channels_last).eval()
            for _ in range(members)
        ]

        @torch.inference_mode()
        @compiled
        def call():
            with _autocast(dtype):
                logits = torch.stack([network(images) for network in networks])
            return torch.sigmoid(logits.float())

        return call

    return _fastest(build)


def wait(result):
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def device_memory():
    # CUDA graphs have pools of their own, which do not count as allocated.
    return torch.cuda.max_memory_reserved() if DEVICE == "cuda" else None


def _fastest(build):
    """Return the fastest of eager and compiled, timed by CALLS calls after the first.

    Compiling needs a C++ compiler. On a GPU, it is tried with CUDA graphs too.
    """
    ways = {"eager": lambda function: function, "compiled": torch.compile}
    if DEVICE == "cuda":
        ways["graphs"] = functools.partial(torch.compile, mode="reduce-overhead")
    best = None
    for name, compiled in ways.items():
        call = build(compiled)
        try:
            wait(call())
            wait(call())
        except Exception as e:  # noqa: BLE001  (torch raises many types here)
            print(f"{name}: failed, {type(e).__name__}: {e}", file=sys.stderr)
            continue
        start = time.perf_counter()
        wait([call() for _ in range(CALLS)])
        seconds = time.perf_counter() - start
        print(f"{name}: {1e3 * seconds / CALLS:.1f} ms", file=sys.stderr, flush=True)
        if best is None or seconds < best[0]:
            best = seconds, call
    del call  # of a slower way, whose memory does not count
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return best[1]


def _on_device(images):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(DEVICE)
    return x.contiguous(memory_format=torch.channels_last)


def _autocast(dtype):
    low = dtype == "bfloat16"
    return torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=low)
