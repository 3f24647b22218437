"""The shards of a dataset: array_record files, written by several processes.

A shard depends on its slices only, not on the process that writes it. One that exists is
complete and is left as it is, so that a preparation that was killed continues.

`python -m lungseg_jax.data.lung_ct.shards` is such a process: it reads shards as JSON, and
prints a line for each slice.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.writer import ExampleWriter

import lungseg_jax
from lungseg_jax.data.lung_ct import builder
from lungseg_jax.data.lung_ct.builder import LungCT, make_features, read_records
from lungseg_jax.data.pairs import Pair
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_write

SHARDS_PER_PROCESS = 4  # at least: a process takes seconds to start
DONE = "slice\n"  # what a process prints for each


class WorkerError(Exception):
    """A bug in a process that writes shards; the message is the end of what it printed."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records, their variant, and the number of the first slice."""

    path: Path
    config: str
    start: int
    pairs: Sequence[Pair]

    def write(self, advance: Callable[[], object]) -> None:
        """Write the file atomically, and call `advance` after each slice.

        Raises:
          UserError: a slice cannot be read, or the file cannot be written.
        """
        writer = ExampleWriter(FileFormat.ARRAY_RECORD)
        with atomic_write(self.path) as temporary:
            try:
                writer.write(temporary, self._serialized(advance))
            except RuntimeError as e:  # array_record's, also of a full disk
                raise unprepared(self.path.parent, e) from e

    def _serialized(self, advance: Callable[[], object]) -> Iterator[tuple[int, bytes]]:
        features = make_features(LungCT.builder_configs[self.config])
        serializer = ExampleSerializer(features.get_serialized_info())
        for key, record in read_records(self.pairs, self.start):
            example = serializer.get_tf_example(features.encode_example(record))
            # Otherwise each process would order the features in its own way.
            yield key, example.SerializeToString(deterministic=True)
            advance()


def make_shards(folder: Path, config: str, pairs: Sequence[Pair]) -> list[Shard]:
    """Divide pairs into shards, which are numbered files in `folder`."""
    size = builder.SLICES_PER_SHARD
    return [
        Shard(folder / f"{i:05}", config, start, pairs[start : start + size])
        for i, start in enumerate(range(0, len(pairs), size))
    ]


def unprepared(folder: Path, why: Exception) -> UserError:
    """Return the error for data that cannot be written to a folder of the cache."""
    return UserError(
        f"the data could not be prepared in {folder}: {why}",
        rule=f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free there.",
        remedy="free some space, or set another folder with --config.cache_dir=DIR.",
    )


def useful_processes(shards: int) -> int:
    """Return how many processes to write shards with."""
    return max(1, min(os.cpu_count() or 1, shards // SHARDS_PER_PROCESS))


def write_shards(shards: Sequence[Shard], advance: Callable[[], object]) -> None:
    """Write shards, which do not exist.

    Args:
      shards: what to write.
      advance: called after each slice, from any thread.

    Raises:
      UserError: a slice cannot be read, a file cannot be written, or a process was killed.
      WorkerError: a process has failed.
    """
    processes = useful_processes(len(shards))
    if processes == 1:
        for shard in shards:
            shard.write(advance)
        return
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        futures = []
        for i in range(processes):
            worker = _start_worker()
            stack.callback(worker.kill)
            futures.append(pool.submit(_follow, worker, shards[i::processes], advance))
        for future in as_completed(futures):
            future.result()


def _start_worker() -> subprocess.Popen:
    # multiprocessing would import the program of the user again.
    root = Path(lungseg_jax.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends the others
    )


def _follow(
    worker: subprocess.Popen, shards: Sequence[Shard], advance: Callable[[], object]
) -> None:
    """Have a process write shards, and wait for it."""
    rest = []
    with worker:
        # If it has ended already, its status says why.
        with contextlib.suppress(BrokenPipeError), worker.stdin:
            worker.stdin.write(_to_json(shards))
        for line in worker.stdout:
            if line == DONE:
                advance()
            else:
                rest.append(line)
    if worker.returncode == 2:
        raise UserError(**json.loads(rest[-1]))
    if worker.returncode < 0:
        number = -worker.returncode
        raise UserError(
            "a process that prepared the data was killed by signal "
            f"{number} ({signal.strsignal(number)}).",
            rule="when memory runs out, Linux kills processes with signal 9.",
            remedy="free some memory and repeat the command, which then continues.",
        )
    if worker.returncode:
        raise WorkerError("".join(rest[-5:]) or f"status {worker.returncode}")


def _to_json(shards: Sequence[Shard]) -> str:
    return json.dumps([dataclasses.astuple(shard) for shard in shards], default=str)


def _from_json(text: str) -> list[Shard]:
    return [
        Shard(
            Path(path),
            config,
            start,
            [Pair(name, Path(image), Path(mask)) for name, image, mask in pairs],
        )
        for path, config, start, pairs in json.loads(text)
    ]


def main() -> None:
    try:
        for shard in _from_json(sys.stdin.read()):
            shard.write(lambda: print(DONE, end="", flush=True))
    except UserError as e:
        print(json.dumps({"what": e.what, "rule": e.rule, "remedy": e.remedy}))
        sys.exit(2)


if __name__ == "__main__":
    main()
