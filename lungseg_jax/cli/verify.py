"""Verify that a run or a bundle is intact: every file, every array of every checkpoint.

    lungseg verify --run=runs/incp_snapshot-phantom
    lungseg verify --run=BUNDLE

Prints a line for each part. Exit status 0: everything is as it was written; 2: something
is damaged or missing, or this installation cannot use the run, with what to do about it.
"""

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.location import require_ensemble


@app.command(__doc__, when_interrupted="nothing was changed.")
@app.run_option("Run or bundle: a folder, gs://, s3:// or hf://ORG/NAME.")
@app.quiet_option
def verify(run: str) -> None:
    require_ensemble(run)
    from lungseg_jax.inference.ensemble.bundle import verify_bundle
    from lungseg_jax.inference.ensemble.hub import locate_or_download
    from lungseg_jax.inference.ensemble.location import is_bundle
    from lungseg_jax.runtime import devices, progress
    from lungseg_jax.runtime.errors import UserError
    from lungseg_jax.training.run import UnsupportedRunError
    from lungseg_jax.training.run_folder import RunFolder
    from lungseg_jax.training.verification import verify_run

    path = locate_or_download(run)
    if is_bundle(path):
        for name in verify_bundle(path):
            progress.say(f"{name:24} intact")
        progress.answer("the bundle is intact")
        return
    devices.require(None)  # Orbax asks which process this is
    faults = verify_run(RunFolder(path))
    damages = [fault for fault in faults if not isinstance(fault, UnsupportedRunError)]
    if damages:
        raise UserError(
            f"{run} is damaged:\n"
            + "\n".join(dict.fromkeys(f"  {fault.what}" for fault in faults)),
            rule="every file is as it was written.",
            remedy=next((fault.remedy for fault in damages if fault.remedy), ""),
        )
    if faults:
        raise faults[0]
    progress.answer("the run is intact")
