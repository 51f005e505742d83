"""The models of the page, and their pipelines for several simultaneous visitors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pretrained import find_model, pretrained_names

MOST_IDLE = 3
RUNS = Path("runs")  # default folder of sddpm train
FIRST = "fashion-mnist"


class Shelf:
    """Pipelines that are used by one job at a time, so that thresholds and hooks of one job do not affect others.

    Args:
        model: the first model, by name or folder; None for fashion-mnist.

    Raises:
        UserError: there is no such model.
    """

    def __init__(self, model: str | None = None):
        self.given = model
        if model is not None:
            pipeline_folder(model)  # for its checks
        self._idle: list[tuple[tuple, SpikingDiffusionPipeline]] = []
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The models to choose from: the first one, those that come with the package, and the runs of this folder."""
        runs = sorted(str(run) for run in RUNS.iterdir() if find_model(run)) if RUNS.is_dir() else []
        return list(dict.fromkeys([self.given or FIRST, *pretrained_names(), *runs]))

    @contextmanager
    def borrowed(self, name: str) -> Iterator[SpikingDiffusionPipeline]:
        """A pipeline for exclusive use inside the block. Its files are read again if they have changed.

        Raises:
            UserError: the model is not among `names`, or is damaged or deleted.
        """
        if name not in self.names():
            raise UserError(f"the model {name!r} no longer exists: reload the page for the current list")
        key = (name, _stamp(pipeline_folder(name)))
        with self._lock:
            found = next((pair for pair in self._idle if pair[0] == key), None)
            if found is not None:
                self._idle.remove(found)
        pipeline = load_pipeline(name) if found is None else found[1]
        yield pipeline
        with self._lock:  # after an error it is dropped, because its state is unknown
            self._idle = [*self._idle, (key, pipeline)][-MOST_IDLE:]


def _stamp(folder: Path) -> tuple:
    """A value that changes when the model changes."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
