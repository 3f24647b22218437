"""Writing config.json and run.json: the identity of a run, which owns its folder."""

import dataclasses
import platform
from typing import Any

import jax
from ml_collections import ConfigDict

from lungseg_jax.checkpointing.checksums import json_digest, with_checksum
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.runtime.files import read_json, write_json
from lungseg_jax.runtime.versions import version_of
from lungseg_jax.training import knobs
from lungseg_jax.training.config import differences
from lungseg_jax.training.knobs import flat
from lungseg_jax.training.run import SCHEMA_VERSION, Run
from lungseg_jax.training.run_data import RunData
from lungseg_jax.training.run_extension import NEW_FOLDER, require_same_beginning
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.scaling import memory_knobs, separate_norms

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "lungseg-jax")


def as_started(config: ConfigDict, folder: RunFolder) -> ConfigDict:
    """Return a configuration with the options that a run did not know as they were.

    The defaults of such options may differ from what the run was started with. They are
    replaced by their `before` value; other values are left for `run_to_resume` to refuse.

    Args:
      config: the configuration asked for.
      folder: holds a run that `Run.open` has accepted.
    """
    known, asked = flat(read_json(folder.config)), flat(config.to_dict())
    defaults = flat(knobs.defaults())
    before = {
        name: value
        for name, value in flat(knobs.before_values()).items()
        if name not in known and value != defaults[name] == asked[name]
    }
    if not before:
        return config
    options = ", ".join(f"{name}={value}" for name, value in before.items())
    progress.say(f"the run was started before these options existed: {options}")
    result = config.copy_and_resolve_references()
    result.update_from_flattened_dict(before)
    return result


def run_to_resume(config: ConfigDict, folder: RunFolder, *, extend: bool) -> Run | None:
    """Open the run of a folder; None if the folder is empty or missing.

    Args:
      config: the configuration asked for.
      folder: the run folder.
      extend: accept a run with other settings; `register_run` checks which.

    Raises:
      UserError: the folder holds another run, one that is damaged, or something else.
    """
    if not folder.holds_run:
        _require_empty(folder)
        if extend:
            raise UserError(
                f"--extend: {folder.path} does not hold a run.",
                remedy="name the folder of the run with --workdir=DIR.",
            )
        return None
    run = Run.open(folder)
    changed = differences(run.config.to_dict(), config.to_dict())
    # Returning to the length before an extension is always allowed.
    asked = _with_cosmetics_of(run.config, config)
    extend = extend or config_digest(asked) in run.record["config_sha256"]
    if changed and not extend:
        raise UserError(
            f"{folder.path} holds a run with other settings:\n{bullet_list(changed)}",
            rule="a run is resumed with the settings that it was started with.",
            remedy=NEW_FOLDER,
        )
    return run


def register_run(
    config: ConfigDict,
    folder: RunFolder,
    data: RunData,
    run: Run | None,
    *,
    initial: dict[str, Any] | None,
    devices: int | None,
) -> None:
    """Write config.json and run.json, or verify that they are of the same run.

    Args:
      config: the configuration asked for.
      folder: the run folder.
      data: of the run; its placement is recorded at the first start.
      run: what `run_to_resume` returned. Its length may differ, if the finished steps
        remain valid.
      initial: what is recorded of the weights that the first step starts from.
      devices: how many the configuration was scaled to; see `fit_to_devices`.

    Raises:
      UserError: the folder holds another run; nothing is changed.
    """
    if run is None:
        if folder.holds_run:
            raise UserError(
                f"another process has just started a run in {folder.path}.",
                remedy="run the command again.",
            )
        start = {"config_sha256": [config_digest(config)], "initial": initial}
        start |= {"memory": memory_knobs(config), "scaled_to_devices": devices}
        start["norms"] = separate_norms(config)
        start["placement"] = dataclasses.asdict(data.placement)
        _write(folder, config, _describe(data) | start)
        return
    _require_same_files(run, data)
    _require_same_norms(run, config)
    if not run.saved_steps:
        require_same_weights(run, initial)
    if changed := differences(run.config.to_dict(), config.to_dict()):
        require_same_beginning(run, config, changed)
        # As at the start, so that the digests of `run_to_resume` are of the same options.
        config = _with_cosmetics_of(run.config, config)
        digests = [config_digest(config), config_digest(run.config)]
        digests = list(dict.fromkeys(digests + run.record["config_sha256"]))
        _write(folder, config, {**run.record, "config_sha256": digests})


def _require_empty(folder: RunFolder) -> None:
    """Accept an empty or missing folder, and the beginning of a run."""
    if not folder.path.exists():
        return
    if not folder.path.is_dir():
        raise UserError(f"{folder.path} is a file.", remedy=NEW_FOLDER)
    # Hidden files are ours; run.json by itself is a start that was interrupted.
    names = {p.name for p in folder.path.iterdir() if not p.name.startswith(".")}
    if not names <= {folder.run.name}:
        raise UserError(
            f"{folder.path} is not empty and does not hold a run.", remedy=NEW_FOLDER
        )


def _with_cosmetics_of(before: ConfigDict, config: ConfigDict) -> ConfigDict:
    """Return a configuration with the cosmetic options of another."""
    values = flat(before.to_dict())
    result = config.copy_and_resolve_references()
    result.update_from_flattened_dict(
        {k.name: values[k.name] for k in knobs.all_knobs() if k.is_cosmetic}
    )
    return result


def config_digest(config: ConfigDict) -> str:
    """Return the digest of a configuration that run.json records."""
    return json_digest(config.to_dict())


def versioned(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file of the run, with schema version and checksum."""
    return with_checksum(content | {"schema_version": SCHEMA_VERSION})


def _write(folder: RunFolder, config: ConfigDict, record: dict[str, Any]) -> None:
    write_json(folder.run, versioned(record))
    write_json(folder.config, {"schema_version": SCHEMA_VERSION} | config.to_dict())


def _require_same_files(run: Run, data: RunData) -> None:
    changed = ""
    if run.record["data"]["fingerprint"] != data.dataset.checked.fingerprint:
        changed = run.config.data.dir or "the phantom dataset"
    extra = run.record.get("extra")  # not in runs from before it was recorded
    if extra and data.extra and extra["fingerprint"] != data.extra.checked.fingerprint:
        changed = "the set of extra phantoms"
    if changed:
        raise UserError(
            f"{run.folder.path} holds a run on other files: {changed} has changed since.",
            rule="a run is resumed on the files that it was started with.",
            remedy=NEW_FOLDER,
        )


def _require_same_norms(run: Run, config: ConfigDict) -> None:
    recorded = run.record.get("norms", separate_norms(config))  # not in older runs
    is_finished = max(run.saved_steps, default=0) >= config.train.total_steps
    if recorded != separate_norms(config) and not is_finished:
        raise UserError(
            f"{run.folder.path} holds a run with model.bn_per_device, which normalizes "
            f"the slices of each of {recorded} devices by themselves. Here, "
            f"{separate_norms(config)} would share a batch.",
            rule="such a run is resumed on as many devices as it was started on.",
            remedy=NEW_FOLDER,
        )


def require_same_weights(run: Run, initial: dict[str, Any] | None) -> None:
    """Check the weights that a run starts from against what run.json records of them.

    Raises:
      UserError: they are others.
    """
    recorded = run.record.get("initial")
    if initial and recorded:  # an older version recorded less
        initial = {key: value for key, value in initial.items() if key in recorded}
    if initial != recorded:
        raise UserError(
            f"{run.folder.path} holds a run from other weights: {run.config.init} has "
            "changed.",
            rule="a run is resumed from the weights that it was started with.",
            remedy=NEW_FOLDER,
        )


def _describe(data: RunData) -> dict[str, Any]:
    checked, extra = data.dataset.checked, data.extra and data.extra.checked
    return {
        "versions": {"python": platform.python_version()}
        | {package: version_of(package) for package in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "data": {
            "variant": data.dataset.variant,
            "fingerprint": checked.fingerprint,
            "dtype": checked.dtype,
            "domain": checked.domain,
        },
        "split": {name: list(names) for name, names in data.split.items()},
        "sha256": dict(checked.digests),
        "extra": extra
        and {"fingerprint": extra.fingerprint, "sha256": dict(extra.digests)},
    }
