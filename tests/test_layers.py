"""The house stands: a file imports only files of a lower rank, and nothing odd."""

import ast
from pathlib import Path

import pytest

import lungseg_jax

ROOT = Path(lungseg_jax.__file__).parent

# Lowest first. A module may import from the lines above its own and from no other.
RANKS = """
runtime.errors runtime.signals __main__ data.io.nifti
data.io.image_headers data.intensity inference.overlay data.io.geometry
    data.metadata runtime.files
    metrics.uncertainty metrics.calibration inference.postprocessing
    inference.measurements metrics.surface_distance evaluation.results
runtime.progress data.io.npy
training.schedules training.optimizers training.losses metrics.overlap
    runtime.sharding runtime.cache runtime.huge_pages training.run_folder
    checkpointing.manifest
    models.operators data.io.images data.preprocessing
    data.augmentation data.sampling
    data.splits data.phantom.canvas
runtime.distributed metrics.registry models.blocks data.pairs data.io.decompression
    data.phantom.patient data.phantom.scanner
    checkpointing.weights inference.ensemble.members
evaluation.slice_scores models.unet data.preflight data.io.dicom data.phantom.chest_wall
models data.io.volumes data.phantom.cavity data.phantom.lung
training.config data.io.volume_writer training.state training.log data.lung_ct.builder
training.recipes data.phantom.dataset training.steps
data.dataset inference.ensemble.predictor
checkpointing.checkpoints training.run_record inference.ensemble.trained
inference.ensemble.loading inference.ensemble.stablehlo inference.ensemble.averaging
    inference.ensemble.model_card evaluation.tuning
inference.ensemble.bundle
inference.segmenter
inference.prediction_table reporting.figures evaluation.evaluator
cli.app inference.plan reporting.tables
evaluation.comparison
reporting.page
reporting.report
cli.evaluate cli.verify cli.check cli.export cli.compare
training.loop
cli.predict experiment
main
"""
EMPTY = {
    "",
    "cli",
    "data",
    "data.io",
    "data.lung_ct",
    "data.phantom",
    "reporting",
    "evaluation",
    "inference",
    "inference.ensemble",
    "training",
    "checkpointing",
    "metrics",
    "runtime",
}


def ranks():
    lines = RANKS.strip().replace("\n    ", " ").splitlines()
    return {name: rank for rank, line in enumerate(lines) for name in line.split()}


def modules():
    """Dotted name below lungseg_jax -> file; a package's __init__ counts as it."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = modules()


def imports(tree, file=Path("x.py")):
    """What a file imports, dotted: `from a.b import c` gives a.b and a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree, file=Path("x.py")):
    """The modules of the package that a file imports."""
    for name in imports(tree, file):
        own = name.removeprefix("lungseg_jax").removeprefix(".")
        if name.split(".")[0] == "lungseg_jax" and own in FILES.keys() - EMPTY:
            yield own


def parse(name):
    return ast.parse(FILES[name].read_text())


def third_party(name):
    return {imported.split(".")[0] for imported in imports(parse(name), FILES[name])}


def test_every_module_has_a_rank_and_every_rank_a_module():
    assert FILES.keys() - EMPTY == ranks().keys()
    for name in EMPTY:  # a docstring at most
        code = [n for n in parse(name).body if not isinstance(n, ast.Expr)]
        assert not code, f"{FILES[name]} has code: give it a rank"


@pytest.mark.parametrize("name", ranks())
def test_imports_lower_ranks_only(name):
    own = ranks()[name]
    upwards = {other for other in ours(parse(name)) if ranks()[other] >= own}
    assert not upwards, f"{name} (rank {own}) imports {sorted(upwards)}"


@pytest.mark.parametrize(
    "library,allowed",
    [
        ("cv2", lambda name: name.startswith("data.") or name == "inference.overlay"),
        ("orbax", {"checkpointing.checkpoints"}.__contains__),
        ("matplotlib", {"reporting.figures"}.__contains__),
        (
            "tensorflow_datasets",
            {"data.dataset", "data.lung_ct.builder"}.__contains__,
        ),
        ("SimpleITK", lambda name: name.startswith("data.")),
        ("safetensors", {"checkpointing.weights"}.__contains__),
        ("tensorflow", lambda name: False),
        ("pickle", lambda name: False),
        ("dill", lambda name: False),
        ("cloudpickle", lambda name: False),
        ("shelve", lambda name: False),
        ("marshal", lambda name: False),
    ],
)
def test_who_imports_what(library, allowed):
    users = {name for name in FILES if library in third_party(name)}
    assert not {name for name in users if not allowed(name)}
    watched = ("cv2", "orbax", "matplotlib", "tensorflow_datasets", "SimpleITK")
    if library in (*watched, "safetensors"):
        assert users  # or this row watches nothing


def test_who_knows_linen():
    """So that it can be exchanged: all others see plain trees and functions."""
    users = {name for name in FILES if "flax" in third_party(name)}
    assert users == {"models.blocks", "models.unet", "training.state", "training.steps"}


def faults(tree):
    """(line, what) of each thing that no file of ours may have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = getattr(called, "id", None)
            if name in ("eval", "exec", "compile", "__import__"):
                yield node.lineno, name
            pickles = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if pickles.get("allow_pickle"):
                yield node.lineno, "allow_pickle"
        elif isinstance(node, ast.ExceptHandler):
            caught = node.type
            names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
            for one in names:
                last = getattr(one, "attr", getattr(one, "id", None))
                # To clean up after anything or to name it, as long as it is raised.
                is_raised = isinstance(node.body[-1], ast.Raise)
                broad = last in ("Exception", "BaseException")
                if last is None or broad and not is_raised:
                    yield node.lineno, f"except {last}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_evaluated_unpickled_or_swallowed(name):
    assert not list(faults(parse(name))), FILES[name]


# --- the checks themselves find what they look for ---


@pytest.mark.parametrize(
    "source,expected",
    [
        ("eval('1')", ["eval"]),
        ("exec(text)", ["exec"]),
        ("np.load(f, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(f, allow_pickle=False)", []),
        ("try: f()\nexcept: pass", ["except None"]),
        ("try: f()\nexcept Exception as e: pass", ["except Exception"]),
        ("try: f()\nexcept (OSError, Exception): g()", ["except Exception"]),
        ("try: f()\nexcept Exception as e:\n  raise g from e", []),
        ("try: f()\nexcept BaseException: pass", ["except BaseException"]),
        ("try: f()\nexcept BaseException:\n  g()\n  raise", []),
        ("try: f()\nexcept (OSError, cv2.error): pass", []),
        ("model.eval()", []),
    ],
)
def test_finds_faults(source, expected):
    assert [what for _, what in faults(ast.parse(source))] == expected


@pytest.mark.parametrize(
    "source,expected",
    [
        ("from lungseg_jax.runtime import errors", {"runtime.errors"}),
        ("import lungseg_jax.data.pairs", {"data.pairs"}),
        ("from lungseg_jax.data import dataset as d", {"data.dataset"}),
        ("from lungseg_jax.data.pairs import Slice", {"data.pairs"}),
        ("from lungseg_jax.models.unet import UNet", {"models.unet"}),
        ("from lungseg_jax.models import make_model", {"models"}),
        (
            "def f():\n  from lungseg_jax import experiment",
            {"experiment"},
        ),  # hidden in a function
        ("from jax import config", set()),
    ],
)
def test_finds_imports(source, expected):
    assert set(ours(ast.parse(source))) == expected
