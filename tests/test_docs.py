"""The documentation is true: links, commands, flags, file names and generated parts."""

import ast
import importlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from lungseg_jax.__main__ import COMMANDS
from lungseg_jax.cli import train, train_flags
from lungseg_jax.evaluation.comparison import compare_masks
from lungseg_jax.evaluation.mask_pairs import PairedMasks
from lungseg_jax.inference import prediction_rows
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.measured_rows import VolumeRows
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.metrics.registry import METRICS
from lungseg_jax.runtime import progress, signals
from lungseg_jax.training import knobs
from lungseg_jax.training.recipes import fine_tuning
from lungseg_jax.training.schedules import cycle_ends

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "configs", "docs", "lungseg_jax", "tests")
FILES = [
    *sorted(ROOT.glob("*.*")),
    *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.*"))),
]
PAGES = [f for f in FILES if f.suffix == ".md" and "legacy" not in f.parts]
SOURCES = [f for f in FILES if f.suffix == ".py"]

KEYS = {knob.name for knob in knobs.all_knobs()}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(r"[\w./-]*\w\.(?:py|sh|md)\b")
LAUNCHERS = [f"launch/{name}.sh" for name in ("gpus", "local", "slurm", "tpu_pod")]
PLACEHOLDERS = {"COMMAND", "FILE", "NAME", "X"}


def relative(file):
    return str(file.relative_to(ROOT))


def inline_code(page):
    """The spans of inline code on a page."""
    return [" ".join(s.split()) for s in SPAN.findall(FENCE.sub("", page.read_text()))]


def code_lines(page):
    """The lines of the fenced blocks of a page, and its inline code."""
    blocks = [block for _, block in FENCE.findall(page.read_text())]
    return [*"\n".join(blocks).splitlines(), *inline_code(page)]


# --- links and file names ---


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def slug(heading):
    words = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"\s", "-", words)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert anchor in map(slug, headings), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_named_on_pages_exist(page):
    for span in inline_code(page):
        for name in PATH.findall(span):
            if Path(name).stem in {*PLACEHOLDERS, "README"}:  # the README of a bundle
                continue
            assert (ROOT / name).exists() or (page.parent / name).exists(), name


def test_files_named_in_sources_exist():
    pattern = r"\b(?:docs|benchmarks|configs|launch|tests|lungseg_jax)/[\w./-]+\.\w+"
    missing = [
        (relative(file), name)
        for file in SOURCES
        if "tests" not in file.parts
        for name in re.findall(pattern, file.read_text())
        if Path(name).stem not in PLACEHOLDERS and not (ROOT / name).exists()
    ]
    assert not missing


# --- commands and flags ---


def flags_of(command):
    module = importlib.import_module(f"lungseg_jax.cli.{command}")
    if command == "train":
        return {*module.FLAGS, "help", "config"}
    params = getattr(module, command).params
    names = (name for p in params for name in (*p.opts, *p.secondary_opts))
    return {"help", *(name.removeprefix("--") for name in names)}


def flags_of_script(file):
    """The flags that a script of benchmarks/ defines with argparse."""
    text = file.read_text()
    if "import turns" in text or "from turns" in text:
        text += (ROOT / "benchmarks" / "turns.py").read_text()
    return set(re.findall(r'add_argument\(\s*"--([\w-]+)"', text))


def known_flags(words, page):
    """The flags of the command that a line of code runs; None if it runs none of ours."""
    match words:
        case ["lungseg", command, *_] if command not in PLACEHOLDERS:
            assert command.startswith("-") or command in COMMANDS, command
            return flags_of(command) if command in COMMANDS else {"help", "version"}
        case ["python", "-m", "lungseg_jax.main", *_]:
            return flags_of("train")
        case [script, *_] if script in LAUNCHERS:
            return {*flags_of("train"), "dry-run"}
        case ["python", script, *_] | [script, *_] if script.endswith(".py"):
            folders = ROOT, page.parent, ROOT / "benchmarks"
            files = [f / script for f in folders if (f / script).exists()]
            return flags_of_script(files[0]) if files else None
        case [flag, *_] if flag.startswith("--"):
            return set().union(*map(flags_of, COMMANDS), {"dry-run"})
    return None


def shell_words(line):
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # not a command
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # the environment
        del words[0]
    return words


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative
)
def test_commands_and_flags_exist(page):
    text = page.read_text()
    for line in code_lines(page):
        words = shell_words(line)
        known = known_flags(words, page)
        if known is None:
            continue
        for word in words:
            name = word.removeprefix("--").partition("=")[0]
            if name.startswith("config.") and word.startswith("--"):
                key = name.removeprefix("config.")
                row = f'"{key.removeprefix("augment.")}"'
                is_added_here = f'"{key}"' in text or row in text  # by a sample
                assert key in {*KEYS, "KEY"} or is_added_here, line
            elif word.startswith("--"):
                assert name in known or name.removeprefix("no") in known, line


def parse_as_typed(words):
    """Parse a command of ours as it is when it is typed, and run nothing."""
    match words:
        case ["lungseg", "train", *rest] | ["python", "-m", "lungseg_jax.main", *rest]:
            options = flags.FlagValues()
            options.append_flag_values(train.FLAGS)
            try:
                train_flags.define_config(options, ["lungseg", *rest])
                train_flags.parse(rest, options)
                train_flags.parse_config(rest, options)
            finally:
                train.FLAGS.unparse_flags()  # they are shared: back to the defaults
        case ["lungseg", name, *rest] if name in COMMANDS:
            command = getattr(importlib.import_module(f"lungseg_jax.cli.{name}"), name)
            command.make_context(name, rest)
        case _:
            return False
    return True


def test_commands_on_pages_are_parsed_as_typed(monkeypatch):
    monkeypatch.setattr(progress, "_silent", False)  # --quiet changes it
    parsed = 0
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines() * (language == "sh"):
                try:
                    parsed += parse_as_typed(shell_words(line))
                except Exception as e:
                    pytest.fail(f"{relative(page)}: {line}: {e}")
    assert parsed > 50


@pytest.mark.parametrize(
    "file", ["docs/how-to/resume_and_extend.md", "lungseg_jax/cli/train.py"]
)
def test_the_example_of_extend_fits_the_recipe(file):
    """The steps that are done are also ends of cycles of the longer run."""
    text = (ROOT / file).read_text()
    cycles, steps = map(int, re.search(r"cycles=(\d+) .*steps=(\d+)", text).groups())
    c = fine_tuning()
    shape = {"total_steps": c.train.total_steps, "cycles": c.schedule.cycles}
    done = cycle_ends(**shape, growth=c.schedule.growth)
    longer = cycle_ends(total_steps=steps, cycles=cycles, growth=c.schedule.growth)
    assert longer[: len(done)] == done and len(longer) > len(done)


def test_every_exit_status_is_on_its_page():
    page = (ROOT / "docs" / "reference" / "exit_status.md").read_text()
    rows = map(int, re.findall(r"^\| (\d+) \|", page, re.M))
    assert {*rows} == {0, 2, *signals.STATUS.values()}


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def table_below(page, line):
    """The cells of the rows of the first table below a line of a page."""
    text = page.read_text().partition(f"\n{line}")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.M)[0]
    rows = table.splitlines()[2:]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


SCORES = ROOT / "docs" / "reference" / "scores.md"


def test_the_columns_of_predictions_are_on_their_page():
    documented = [
        (name, rows)
        for names, _, rows, _ in table_below(SCORES, "## Quantities")
        for name in names_in(names)
    ]
    assert tuple(name for name, _ in documented) == prediction_rows.COLUMNS
    mask, spacing = np.ones((2, 2), bool), (1.0, 1.0, 1.0)
    confidence = Confidence(0.9, True, 0.1, 0.1, 0.1, ("uncertain",))
    volume = VolumeRows("a", spacing)
    volume.add(0, -700 * mask, mask, confidence)
    with PredictionTable(None, collect=True) as table:
        table.add(*volume.finish(right=2, left=2))
    for kind, row in zip(("slice", "`all`"), table.rows, strict=True):
        filled = [column for column, cell in row.items() if cell]
        assert filled == [name for name, rows in documented if kind in rows], kind


def test_the_results_of_compare_are_on_their_page():
    columns = table_below(SCORES, "## Files of `compare`")
    documented = [name for names, *_ in columns for name in names_in(names)]
    assert documented == ["slice", "volume", *METRICS]
    mask = np.ones((2, 2), bool)
    pairs = PairedMasks(1, iter([("a", mask, mask)]))
    keys = table_below(SCORES, "A cell is empty")
    documented = [name for names, _ in keys for name in names_in(names)]
    assert documented == list(compare_masks(pairs, tolerance=2.0))


def strings_of(file):
    """The strings of a Python file; of an f-string, the parts between its values."""
    nodes = ast.walk(ast.parse(file.read_text()))
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def test_messages_on_the_page_of_troubles_are_real():
    page = ROOT / "docs" / "how-to" / "troubleshoot.md"
    package = (file for file in SOURCES if "lungseg_jax" in file.parts)
    texts = [text for file in package for text in strings_of(file)]
    code = "".join(" ".join(texts).split())
    messages = [span for span in inline_code(page) if "..." in span]
    assert len(messages) > 10
    for message in messages:
        for part in message.split("..."):
            assert "".join(part.split()) in code, message


# --- generated parts ---


def load_script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date():
    script = load_script(ROOT / "docs" / "generate_reference.py")
    pages = script.generated_pages()
    assert len(pages) == 3
    for page, text in pages.items():
        assert page.read_text() == text, "run python docs/generate_reference.py"


def test_the_picture_of_the_folders_is_up_to_date():
    drawing = load_script(ROOT / "docs" / "draw_folders.py")
    drawn = drawing.PICTURE.read_text()
    assert drawn == drawing.picture(), "run python docs/draw_folders.py"


def test_the_picture_of_the_folders_shows_each_below_those_that_import_it():
    drawing = load_script(ROOT / "docs" / "draw_folders.py")
    graph = {"a": {"b", "c"}, "b": {"d"}, "c": set(), "d": set()}
    assert drawing.rows_of(graph) == [["a"], ["b", "c"], ["d"]]
    assert drawing.svg(graph).count("marker-end") == 3


def test_the_pictures_are_small_and_those_of_the_code():
    script = load_script(ROOT / "docs" / "draw_pictures.py")
    for name, drawn in (
        ("mask.png", script.mask_with_doubt()),
        ("phantoms.jpg", script.phantom_sheet()),
    ):
        old, new = (
            np.asarray(Image.open(file).convert("L"), np.float32)
            for file in (script.FOLDER / name, io.BytesIO(drawn))
        )
        # Other versions of matplotlib draw other letters, 5; another slice is 40.
        assert old.shape == new.shape and np.abs(old - new).mean() < 10, name
    assert all(picture.stat().st_size < 500_000 for picture in script.FOLDER.iterdir())


def test_arrows_that_follow_from_others_are_left_out():
    reduce = load_script(ROOT / "docs" / "draw_folders.py").reduce_transitively
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    expected = {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    assert reduce(graph) == expected
    with pytest.raises(ValueError, match="a -> b -> a"):
        reduce({"a": {"b"}, "b": {"a"}})


def test_the_life_of_a_run_names_real_functions():
    page = (ROOT / "docs" / "architecture.md").read_text()
    (block,) = [b for _, b in FENCE.findall(page) if "run_experiment" in b]
    names = [line.split()[0] for line in block.splitlines()]
    assert len(names) > 10
    for name in names:
        assert resolves(f"lungseg_jax.{name}"), name


def resolves(name):
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            value = getattr(value, part, None)
        return value is not None
    return False
