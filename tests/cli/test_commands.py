"""The commands as a user types them, in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.__main__ import COMMANDS
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom import dataset

ROOT = Path(__file__).parents[2]


def start(name, *words, cwd=ROOT, cache, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "lungseg_jax", name, *map(str, words)],
        cwd=cwd,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def command(name, *words, cwd=ROOT, cache):
    return end(start(name, *words, cwd=cwd, cache=cache))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    dataset.write_phantoms(folder, slices=3, seed=9, size=128)
    return folder


TINY = [
    "--config=configs/smoke.py",
    "--config.model.name=conv",  # which compiles in a third of the time
    "--config.model.filters=2",
    "--config.train.total_steps=12",
    "--config.data.image_size=32",
    "--config.data.phantom_slices=12",
]


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A run of smoke.py made smaller still, from another folder than the checkout."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = command("train", *TINY, cwd=elsewhere, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as predict writes it" in done.stdout
    return elsewhere / "runs/smoke-phantom"


def test_evaluate_writes_the_scores_of_a_folder(run, labelled, cache, tmp_path):
    file, page = tmp_path / "scores.json", tmp_path / "page"
    words = [f"--run={run}", f"--data={labelled}", f"--json={file}", f"--report={page}"]
    done = command("evaluate", *words, cache=cache)
    assert done.returncode == 0, done.stderr
    scores = json.loads(file.read_text())
    assert scores["n"] == 3 and scores["members"].keys() == {"6", "12"}
    assert scores["trained_on"] == 0 and scores["flips"] is False
    assert f"{scores['ensemble']['iou_pooled']:.4f}" in done.stdout
    assert {"index.html", "slices.csv", "expected.png"} <= {
        p.name for p in page.iterdir()
    }
    for others in (words, [*words[:2], words[3]]):
        again = command("evaluate", *others, cache=cache)
        assert again.returncode == 2 and "--overwrite" in again.stderr


def test_an_answer_that_nobody_gets_is_an_error(labelled):
    folder = labelled / "2d_masks"
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "lungseg_jax", "compare", folder, folder]
        done = subprocess.run(
            words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2 and "could not be written" in done.stderr


def test_predict_checks_all_inputs_before_it_writes(run, labelled, cache, tmp_path):
    inputs = tmp_path / "in"
    shutil.copytree(labelled / "2d_images", inputs)
    last = sorted(inputs.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:500])
    done = command("predict", f"--run={run}", inputs, tmp_path / "out", cache=cache)
    assert done.returncode == 2 and last.name in done.stderr
    assert not (tmp_path / "out").exists()


def test_members_last_is_the_last_alone(run, labelled, cache, tmp_path):
    file = tmp_path / "scores.json"
    words = [f"--run={run}", f"--data={labelled}", "--members=last", f"--json={file}"]
    assert command("evaluate", *words, cache=cache).returncode == 0
    scores = json.loads(file.read_text())
    assert scores["members"].keys() == {"12"} and scores["choices"] == {}
    cleaned = scores["postprocessing"]["scores"]
    assert cleaned["none"]["iou_pooled"] == scores["members"]["12"]["iou_pooled"]


def test_predict_writes_a_mask_for_an_image_and_for_a_folder(
    run, labelled, cache, tmp_path
):
    images = labelled / "2d_images"
    first = sorted(images.iterdir())[0]
    done = command("predict", f"--run={run}", first, tmp_path / "m.png", cache=cache)
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128) and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}

    done = command("predict", f"--run={run}", images, tmp_path / "all", cache=cache)
    assert done.returncode == 0, done.stderr
    assert "wrote 3 masks" in done.stdout
    assert {p.name for p in (tmp_path / "all").iterdir()} == {
        p.name for p in images.iterdir()
    }
    same = cv2.imread(str(tmp_path / "all" / first.name), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(same, mask)

    before = (tmp_path / "m.png").stat().st_mtime_ns
    done = command("predict", f"--run={run}", first, tmp_path / "m.png", cache=cache)
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (tmp_path / "m.png").stat().st_mtime_ns == before


def test_predict_refuses_pictures_for_a_network_of_hounsfield_units(
    run, cache, tmp_path
):
    write_image(tmp_path / "photo.png", np.mgrid[:64, :64][0].astype(np.uint8))
    words = [f"--run={run}", tmp_path / "photo.png", tmp_path / "m.png"]
    done = command("predict", *words, cache=cache)
    assert done.returncode == 2
    assert "photo.png has gray values from 0 to 255" in done.stderr
    assert "trained on Hounsfield units" in done.stderr
    assert not (tmp_path / "m.png").exists()


def test_a_bundle_predicts_a_volume_as_its_run_does(run, labelled, cache, tmp_path):
    """Through `lungseg`, from another folder; and a damaged bundle is told."""
    files = sorted((labelled / "2d_images").iterdir())
    stack = np.stack([cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in files])
    scan = sitk.GetImageFromArray(stack)
    scan.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(scan, str(tmp_path / "scan.nii.gz"))

    def lungseg(*words):
        return command(*words, cwd=tmp_path, cache=cache)

    done = lungseg("export", f"--run={run}", "bundle")
    assert done.returncode == 0 and "2 networks" in done.stdout, done.stderr
    assert lungseg("verify", "--run=bundle").returncode == 0
    masks = []
    for source in (run, "bundle"):
        words = [f"--run={source}", "--overwrite", "--csv=lungs.csv", "--overlay"]
        done = lungseg("predict", *words, "scan.nii.gz", "lungs.mha")
        assert done.returncode == 0, done.stderr
        mask = sitk.ReadImage(str(tmp_path / "lungs.mha"))
        assert mask.GetSpacing() == pytest.approx((0.7, 0.8, 2.5))
        masks.append(sitk.GetArrayFromImage(mask))
    np.testing.assert_array_equal(*masks)
    assert len((tmp_path / "lungs.csv").read_text().splitlines()) == 1 + 3 + 1
    assert (tmp_path / "lungs_overlay.png").exists()
    refused = lungseg("export", f"--run={run}", "bundle")
    assert refused.returncode == 2 and "exists already" in refused.stderr

    weights = tmp_path / "bundle/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for words in (
        ["verify", "--run=bundle"],
        ["predict", "--run=bundle", "scan.nii.gz", "other.mha"],
    ):
        damaged = lungseg(*words)
        assert damaged.returncode == 2 and "model.safetensors" in damaged.stderr
    assert not (tmp_path / "other.mha").exists()


def start_job(*words, cache, cwd=ROOT):
    """Two processes, each told of the other as Slurm does."""
    return [
        start(
            "train",
            "--distributed",
            *words,
            cwd=cwd,
            cache=cache,
            SLURM_JOB_ID=str(os.getpid()),  # gives the port
            SLURM_STEP_NODELIST="localhost",
            SLURM_NTASKS="2",
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
        )
        for i in range(2)
    ]


@pytest.mark.slow  # a minute of both cores
def test_two_processes_train_as_one(run, cache, tmp_path):
    first, second = map(end, start_job(*TINY, cache=cache, cwd=tmp_path))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "12 steps of 4 on 2 cpu" in first.stdout
    assert "step" not in second.stdout  # one process speaks
    jobs = tmp_path / "runs/smoke-phantom"
    one, two = (
        [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, jobs)
    )
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for name in a.keys() - {"kind", "steps_per_second"}:
            assert b[name] == pytest.approx(a[name], rel=1e-3), name
    scores = [
        json.loads((folder / "evaluation.json").read_text()) for folder in (run, jobs)
    ]
    assert scores[1]["ensemble"]["iou_pooled"] == pytest.approx(
        scores[0]["ensemble"]["iou_pooled"], abs=2e-3
    )

    # Cut off after its first snapshot, it goes on from there, to the same end.
    kept = (jobs / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(jobs / "checkpoints/12")
    (jobs / "evaluation.json").unlink()
    first, second = map(end, start_job(*TINY, cache=cache, cwd=tmp_path))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "resuming after step 6" in first.stdout
    for before, after in zip(
        kept, (jobs / "metrics.jsonl").read_text().splitlines(), strict=True
    ):
        before, after = json.loads(before), json.loads(after)
        assert after.get("loss") == before.get("loss")


def test_a_job_ends_where_its_first_process_fails(tmp_path):
    words = ["--config=configs/smoke.py", "--config.data.dir=nowhere"]
    first, second = map(end, start_job(*words, cache=tmp_path))
    assert first.returncode == second.returncode == 2
    assert "nowhere does not exist" in first.stderr
    assert "the first process has failed" in second.stderr


MAIN = "--config=configs/smoke.py"


@pytest.mark.parametrize(
    "module,words,says",
    [
        ("train", ["--config=configs/smok.py"], "no config file configs/smok.py"),
        ("train", ["--config=configs/conv.py:fast"], ":notebook, :full"),
        ("train", [MAIN, "--config.train.totl_steps=3"], "train.total_steps"),
        ("train", [MAIN, "--config.train.total_steps=many"], "total_steps=many"),
        ("train", [MAIN, "--config.schedule.cycles=99"], "at least one step"),
        ("train", [MAIN, "--config.data.dir=nowhere"], "nowhere does not exist"),
        ("train", [MAIN, "stray"], "stray"),
        ("train", [], "no recipe was named"),
        ("train", ["--config", "configs/smok.py"], "no config file configs/smok.py"),
        ("train", ["--config=README.md"], "no config file README.md"),
        ("train", [MAIN + ":full"], "no variant :full"),
        ("train", [MAIN, "--config.data.window_hu=1,'b'"], "two increasing numbers"),
        ("train", [MAIN, "--config.data.dir=setup.py"], "setup.py is a file"),
        ("train", [MAIN, "--wrkdir=x"], "wrkdir"),
        ("train", [MAIN, "--distributed"], "JAX_COORDINATOR_ADDRESS"),
        ("evaluate", ["--run=nowhere", "--data=nowhere"], "nowhere does not exist"),
        ("predict", ["--run=nowhere", "a.tif"], "INPUT OUTPUT"),
        ("predict", ["--run=nowhere", "a.tif", "b.tif"], "a.tif does not exist"),
        ("predict", ["a.tif", "b.tif"], "--run is missing."),
        ("predict", ["--run=nowhere", "", "b.tif"], "INPUT is empty."),
        ("compare", ["--tolerance=nan", "a.tif", "b.tif"], "--tolerance=nan"),
    ],
)
def test_mistakes_get_one_plain_error(module, words, says, cache, tmp_path):
    done = command(module, *words, cache=tmp_path / "unused")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list(tmp_path.glob("unused/lungseg_jax/*"))  # prepared, compiled: none


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_and_flags(name, tmp_path):
    done = command(name, "--help", cache=tmp_path)
    assert done.returncode == 0
    assert f"lungseg {name} " in done.stdout
    assert "Flags:" in done.stdout


def test_lungseg_lists_its_commands_and_knows_no_others(tmp_path):
    done = command("--help", cache=tmp_path)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    wrong = command("predcit", "a", cache=tmp_path)
    assert wrong.returncode == 2 and "fix:   lungseg predict" in wrong.stderr
    none = command("", cache=tmp_path)
    assert none.returncode == 2 and "no command was named" in none.stderr


def test_every_module_of_a_run_imports_without_tensorflow():
    code = "import sys, lungseg_jax.main; assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_goes_on_with_another_number_of_devices(run, cache, tmp_path):
    """From its first snapshot, on two devices: the same data, equal to rounding."""
    shutil.copytree(run, tmp_path / "run")
    for lost in ("checkpoints/12", "evaluation.json", "report/index.html"):
        path = tmp_path / "run" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = end(
        start(
            "train",
            *TINY,
            f"--workdir={tmp_path}/run",
            cache=cache,
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
        )
    )
    assert done.returncode == 0, done.stderr
    assert "on 2 cpu" in done.stdout and "resuming after step 6" in done.stdout
    one, two = (
        [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "run")
    )
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        if "loss" in ours:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
