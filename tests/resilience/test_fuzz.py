"""Random files, knobs and command lines raise nothing but UserError.

The long forms take minutes: `pytest -m slow tests/resilience/test_fuzz.py`.
"""

import contextlib
import functools
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import run_command
from ml_collections import ConfigDict

from lungseg_jax.checkpointing.checksums import with_checksum
from lungseg_jax.data.io import images
from lungseg_jax.data.io.images import DTYPES, read_image, read_mask
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import config, knobs
from lungseg_jax.training.run_record import config_digest
from lungseg_jax.training.scaling import check_batch

ROOT = Path(__file__).parents[2]
# From the way in which ml_collections loads a recipe.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def lengths(short, long):
    """Parametrize `n`: `short` inputs always, `long` with `-m slow`."""
    return pytest.mark.parametrize(
        "n", [short, pytest.param(long, marks=pytest.mark.slow)]
    )


def try_out(n, strategy, trial):
    """Call `trial` with `n` inputs, the same ones in every run."""
    count = 0

    @settings(max_examples=n, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy)
    def each(example):
        nonlocal count
        count += 1
        trial(example)

    each()
    assert count >= n


# --- files ---

EXTREMES = [0, 1, 2, 3, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20, 2**24, 2**26]
EXTREMES += [2**28, 2**30, 2**31 - 1, 2**31, 2**32 - 1]
PNG = b"\x89PNG\r\n\x1a\n"


@functools.cache
def valid_files():
    """Return (suffix, content) of small files of every dtype and compression."""
    rows, columns = np.mgrid[:24, :20]
    disc = (rows - 12) ** 2 + (columns - 10) ** 2 < 40
    pixels = np.where(disc, 70, 1) + np.random.default_rng(0).integers(0, 40, (24, 20))
    files = []
    wide = "uint32" if cv2.__version__ >= "5" else "int32"  # OpenCV 4 cannot write it
    for dtype in (*DTYPES, "int8", wide):
        for compression in (1, 5, 8, 32773):
            form = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
            content = cv2.imencode(".tif", pixels.astype(dtype), form)[1]
            files.append((".tif", content.tobytes()))
    for array in (
        pixels.astype("uint8"),
        pixels.astype("uint16"),
        disc * np.uint8(255),
    ):
        files.append((".png", cv2.imencode(".png", array)[1].tobytes()))
    for mask in (disc, disc * np.uint8(255)):
        files.append((".tif", cv2.imencode(".tif", mask.astype("uint8"))[1].tobytes()))
    is_encoded, stack = cv2.imencodemulti(".tif", [pixels.astype("int16")] * 3)
    assert is_encoded
    colour = cv2.imencode(".tif", np.zeros((9, 9, 3), np.uint8))[1]
    return [*files, (".tif", stack.tobytes()), (".tif", colour.tobytes())]


@functools.cache
def bombs():
    """Return valid files of a hundred kilobytes with a hundred megabytes of pixels."""
    zeros = np.zeros((4096, 8192), np.int16)
    form = [cv2.IMWRITE_TIFF_COMPRESSION, 8]
    bombs = [(".tif", cv2.imencode(".tif", zeros, form)[1].tobytes())]
    return [*bombs, (".png", cv2.imencode(".png", zeros.view(np.uint16))[1].tobytes())]


def tiff_fields(content):
    """Return the offsets of the entries in the first directory of a little-endian TIFF."""
    if content[:4] != b"II*\0":
        return []
    (at,) = struct.unpack_from("<I", content, 4)
    (n,) = struct.unpack_from("<H", content, at)
    room = (len(content) - at - 2) // 12
    return [at + 2 + 12 * i for i in range(min(n, room))]


def with_field(draw, content):
    """Change the tag, type, count or value of a TIFF field."""
    at = draw(st.sampled_from(tiff_fields(content)))
    entry = list(struct.unpack_from("<HHII", content, at))
    part = draw(st.sampled_from([0, 1, 2, 3, 3, 3]))
    tags = [256, 257, 258, 259, 262, 274, 277, 278, 284, 317, 322, 323, 324, 339]
    entry[part] = draw(
        [
            st.sampled_from(tags),
            st.integers(0, 20),
            st.sampled_from(EXTREMES),
            st.sampled_from(EXTREMES) | st.integers(0, 2**32 - 1),
        ][part]
    )
    return content[:at] + struct.pack("<HHII", *entry) + content[at + 12 :]


def with_chunk(draw, content):
    """Replace the chunks of a PNG by random ones with valid checksums."""
    colour = draw(st.sampled_from([0, 0, 0, 2, 3, 4, 6, 7]))
    head = struct.pack(
        ">IIBBBBB",
        draw(st.sampled_from(EXTREMES)),
        draw(st.sampled_from(EXTREMES)),
        draw(st.sampled_from([1, 2, 4, 8, 16, 3, 32])),
        colour,
        0,
        0,
        draw(st.integers(0, 2)),
    )
    name = draw(st.sampled_from([b"acTL", b"fcTL", b"PLTE", b"tRNS", b"zTXt", b"iCCP"]))
    extra = draw(st.binary(max_size=40))
    bomb = zlib.compress(b"\0" * draw(st.sampled_from([0, 500, 10**6])))
    data = draw(st.sampled_from([bomb, b"", extra]))
    chunks = [(b"IHDR", head), (name, extra), (b"IDAT", data), (b"IEND", b"")]
    if draw(st.booleans()):
        del chunks[draw(st.integers(0, 3))]
    file = PNG
    for name, data in chunks:
        file += struct.pack(">I", len(data)) + name + data
        file += struct.pack(">I", zlib.crc32(name + data))
    return file


def with_bytes(draw, content):
    at = draw(st.integers(0, max(0, len(content) - 1)))
    new = draw(
        st.binary(min_size=1, max_size=8)
        | st.sampled_from(EXTREMES).map(lambda v: struct.pack("<I", v))
        | st.sampled_from(EXTREMES).map(lambda v: struct.pack(">I", v))
    )
    return content[:at] + new + content[at + len(new) :]


def truncated(draw, content):
    return content[: draw(st.integers(0, len(content)))]


def repeated(draw, content):
    at, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    return content[:end] + content[at:]


@st.composite
def files(draw):
    """Draw (suffix, content): a valid file changed one to four times, or random bytes."""
    suffix, content = draw(st.sampled_from([*valid_files(), *bombs()]))
    if draw(st.integers(0, 9)) == 0:
        magic = draw(
            st.sampled_from([b"", PNG, b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"])
        )
        return suffix, magic + draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(1, 4))):
        ways = [with_bytes, truncated, repeated] + [with_chunk] * (suffix == ".png")
        with contextlib.suppress(struct.error):  # its directory is truncated
            ways += [with_field] * 4 * bool(tiff_fields(content))
        content = draw(st.sampled_from(ways))(draw, content)
    return suffix, content


def read(folder, file):
    """Read a file as image and as mask; return how many of the two succeeded."""
    suffix, content = file
    path = folder / f"a{suffix}"
    path.write_bytes(content)
    successes = 0
    for reader, dtypes in ((read_image, DTYPES), (read_mask, ("uint8",))):
        try:
            array = reader(path)
        except UserError as e:
            assert str(path) in e.what and e.rule and e.remedy
            continue
        assert array.ndim == 2 and array.dtype.name in dtypes
        assert 0 < array.size <= images.MAX_PIXELS
        assert np.isfinite(array).all()
        successes += 1
    return successes


@lengths(1000, 40_000)
def test_readers_return_valid_arrays_or_raise_user_error(n, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 2**20)
    successes = []
    try_out(n, files(), lambda file: successes.append(read(tmp_path, file)))
    # Neither all refused nor all valid: the changes have the right size.
    assert 0.02 < np.mean(np.array(successes) > 0) < 0.9


def memory_mb():
    """Return the peak address space of this process, including untouched pages."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmPeak:")[2].split()[0]) / 1024


def print_memory_of_readers(folder, n):
    """Print how much the peak grows while `n` files are read; run in a new process."""
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))  # protects the machine
    cv2.setNumThreads(1)
    images.MAX_PIXELS = 2**20
    inputs = valid_files() + bombs()
    try_out(n, files(), inputs.append)  # before measuring: Hypothesis needs memory
    for file in inputs[:3]:
        read(folder, file)
    before = memory_mb()
    for file in inputs:
        read(folder, file)
    print("MB:", memory_mb() - before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@lengths(500, 20_000)
def test_readers_need_little_memory(n, tmp_path):
    """The limit is 2**20 pixels of at most 8 bytes; some files ask for gigabytes."""
    code = (
        "import pathlib, sys; sys.path[:0] = ['tests', 'tests/resilience'];"
        "import conftest, test_fuzz;"
        f"test_fuzz.print_memory_of_readers(pathlib.Path({str(tmp_path)!r}), {n})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The file, the image, the strip it is decoded from, the finite pixels: 8 MB each.
    assert float(done.stdout.split()[-1]) < 40, done.stdout


# --- knobs ---

ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 10**400, -0.0, 1e-300, 1e308]
ODD_NUMBERS += [float("nan"), float("inf"), -float("inf"), True, False]
VALUES = st.recursive(
    st.none()
    | st.sampled_from(ODD_NUMBERS)
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from(
        ["adam", "constant", "a\0b", "~nobody-here/x", "a/b", "/", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, min_size=2, max_size=2).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def check_config(changes):
    """Check that a configuration is either refused or usable."""
    c = config.default_config().to_dict()
    for key, value in changes.items():
        *parents, last = key.split(".")
        functools.reduce(lambda tree, part: tree[part], parents, c)[last] = value
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        c = ConfigDict(c)  # it refuses some keys itself
    if not isinstance(c, ConfigDict):
        return
    try:
        config.check_config(c)
        config.default_workdir(c)
        check_batch(c, training_slices=100, devices=2)
    except UserError:
        return
    assert config.snapshot_steps(c)[-1] == c.train.total_steps


@lengths(1000, 20_000)
def test_knobs_with_values_of_any_type(n):
    changes = st.dictionaries(
        st.sampled_from([knob.name for knob in knobs.all_knobs()]),
        VALUES,
        min_size=1,
        max_size=3,
    )
    try_out(n, changes, check_config)


RANGES = {knob.name: knob.range for knob in knobs.all_knobs() if knob.range}


@lengths(500, 30_000)
def test_knobs_within_their_ranges(n):
    """Each is allowed, but not every combination: 10,000 cycles that grow a hundredfold."""
    within = {
        key: (st.floats if isinstance(low, float) else st.integers)(low, high)
        | st.sampled_from([low, high])
        for key, (low, high) in RANGES.items()
    }
    changes = st.sets(st.sampled_from(sorted(RANGES)), min_size=1, max_size=6).flatmap(
        lambda keys: st.fixed_dictionaries({key: within[key] for key in sorted(keys)})
    )
    try_out(n, changes, check_config)


# --- command lines ---


@pytest.fixture
def places(tmp_path, monkeypatch, pair_folder):
    """Valid and invalid paths, relative to the working directory of the commands."""
    good = pair_folder(["a", "b"], folder="good")
    bad = pair_folder(["a", "b", "c"], folder="bad")
    (bad / "2d_images" / "a.tif").write_bytes(b"II*\0")
    (bad / "2d_masks" / "b.tif").unlink()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dead").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"data": [1]}')
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "complete").mkdir()  # but without a checkpoint
    written = json.dumps(config.default_config().to_dict())
    (tmp_path / "complete" / "config.json").write_text(written)
    record = {
        "data": {"dtype": "int16"},
        "config_sha256": [config_digest(config.default_config())],
    }
    (tmp_path / "complete" / "run.json").write_text(json.dumps(with_checksum(record)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or main restarts itself
    monkeypatch.setattr(
        "lungseg_jax.experiment.run_experiment",
        lambda c, *args, **kwargs: config.check_config(c),
    )
    names = [*(p.name for p in tmp_path.iterdir()), "good/2d_images", "bad/2d_images"]
    names += ["good/2d_images/a.tif", "bad/2d_images/a.tif", "new", "new.png", "", "."]
    return [
        *names,
        "~nobody-here/x",
        "~",
        "n" * 300,
        "loop/x",
        "file.json/x",
        str(good),
    ]


FLAGS_OF = {
    "train": ["config", "workdir"],
    "evaluate": "run data members flips json report overwrite nooverwrite".split(),
    "predict": "run members flips postprocessing uncertainty probability overlay csv "
    "format series overwrite quiet labels volume_cleanup".split(),
    "compare": "tolerance csv json overwrite quiet".split(),
    "export": ["run", "members"],
    "verify": ["run"],
    "check": ["cache_dir"],
    "convert": ["lung", "every", "quiet", "output"],
}
# Without slash and dot nothing is created elsewhere; argv cannot have zero bytes.
TEXT = st.text(st.characters(codec=None, exclude_characters="/.\0~"), max_size=12)
TEXTS = TEXT | st.sampled_from(
    "nan inf -inf 1e999 -1 0 1_000 0x10 None True false (1,2) [ ( {} '' 1,2 all last best "
    "1,x 99999999999999999999 --".split()
    + ["9" * 5000, "(" * 300, "(" * 20_000, "-" * 3, "\ud800", "é", " ", "1\n2", "1,2,"]
)


def command_lines(module, places):
    value = st.sampled_from(places) | TEXTS
    names = st.sampled_from(FLAGS_OF[module] * 3 + ["undefok", "flagfile", "v", "help"])
    named = st.builds("--{}={}".format, names, value)
    word = st.one_of(
        value, named, named, names.map("--{}".format), TEXT.map("--{}".format)
    )
    recipes = [f"--config={path}" for path in sorted((ROOT / "configs").glob("*.py"))]
    if module == "train":
        keys = [knob.name for knob in knobs.all_knobs()]
        key = st.sampled_from(keys) | st.sampled_from(["train", "x", "data.dirr"])
        knob = st.builds("--config.{}={}".format, key, value)
        recipe = st.sampled_from(recipes + [f"{recipes[0]}:full", f"{recipes[0]}:x"])
        return st.builds(
            lambda first, more: [*first, *more],
            st.lists(recipe, min_size=0, max_size=1) | st.lists(recipe, min_size=1),
            st.lists(knob | knob | word, max_size=4),
        )
    required = [name for name in ("run", "data") if name in FLAGS_OF[module]]
    start = st.tuples(*(st.builds(f"--{name}={{}}".format, value) for name in required))
    # Folders that can be compared, or all trials would end early.
    paths = st.lists(st.sampled_from([*places, *["good/2d_masks"] * 9]), max_size=2)
    return st.builds(lambda *parts: sum(map(list, parts), []), start, paths) | st.lists(
        word, max_size=6
    )


def test_flags_are_reset_between_commands(places, monkeypatch, tmp_path):
    """A flag or knob of one trial would otherwise hide a fault of the next."""
    calls = []
    monkeypatch.setattr(
        "lungseg_jax.experiment.run_experiment",
        lambda c, *args, **kwargs: calls.append((c.name, c.seed, *args, kwargs)),
    )
    recipe = f"--config={ROOT / 'configs/smoke.py'}"
    changes = ["--config.seed=5", "--workdir=w", "--extend", "--track=tensorboard"]
    for words in (changes, []):
        done = run_command("train", [recipe, *words], monkeypatch)
        assert done.returncode == 0, done.stderr
    defaults = {"extend": False, "track": []}
    assert calls == [
        ("smoke", 5, "w", {"extend": True, "track": ["tensorboard"]}),
        ("smoke", 0, "", defaults),
    ]
    done = run_command("train", [], monkeypatch)
    assert done.returncode == 0, done.stderr
    assert calls[-1] == ("incp_snapshot", 0, "", defaults)  # the recipe is forgotten

    masks, scores = ["good/2d_masks"] * 2, tmp_path / "scores.json"
    done = run_command("compare", ["--json=scores.json", *masks], monkeypatch)
    assert done.returncode == 0 and scores.exists(), done.stderr
    scores.unlink()
    done = run_command("compare", ["--quiet", *masks], monkeypatch)
    assert done.returncode == 0 and not scores.exists(), done.stderr
    assert not progress._silent


@lengths(250, 10_000)
@pytest.mark.parametrize("module", FLAGS_OF)
def test_command_lines_succeed_or_end_with_a_plain_error(
    n, module, places, monkeypatch
):
    statuses = []

    def trial(argv):
        done = run_command(module, argv, monkeypatch)
        status, stderr = done.returncode, done.stderr
        assert status in (0, 2), (status, stderr)
        assert (status == 2) == stderr.startswith("error: "), stderr
        if argv and not {"-h", "-help", "--help"} & set(argv):
            statuses.append(status)

    try_out(n, command_lines(module, places), trial)
    assert 2 in statuses
    if module in ("train", "check", "compare"):
        assert 0 in statuses
    if module in ("export", "convert"):  # no folder holds what they need
        assert 0 not in statuses
