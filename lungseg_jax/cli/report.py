"""Write the page of a finished run again, without training.

    lungseg report runs/incp_snapshot-phantom
    lungseg report --data=/data/lung_ct RUN

RUN is the folder of a finished run. Its scores are those in evaluation.json; only the
example slices are segmented again, for which the data of the run are needed. --data says
where they are now. The page, RUN/report/index.html, embeds its pictures and refers to no
other file, so it can be sent on its own.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.data.data_folder import require_data_folder
from lungseg_jax.inference.ensemble.location import require_run


@app.command(__doc__, when_interrupted="the page is as it was before.")
@click.argument("run", metavar="RUN", type=app.FOLDER)
@click.option("--data", type=app.FOLDER, help="Folder of the data, if it has moved.")
@app.quiet_option
@app.verbose_option
def report(run: Path, data: Path | None) -> None:
    require_run(run)
    if data:
        require_data_folder(data)
    from lungseg_jax.reporting.run_page import rewrite_run_page
    from lungseg_jax.runtime import progress

    progress.answer(f"report: {rewrite_run_page(run, data)}")
