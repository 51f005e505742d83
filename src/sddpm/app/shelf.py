"""Which models the page knows, and pipelines of them that several visitors use at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pretrained import find_model, pretrained_names

MOST_IDLE = 3
RUNS = Path("runs")  # where sddpm train puts them


class Shelf:
    """Pipelines that are lent to one job at a time: thresholds and hooks of one do not reach another's pictures.

    Args:
        model: the one to begin with, by name or folder; None for the first that comes with the package.

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
        """The models to choose from: the given one, those that come with the package, and the runs of this folder."""
        runs = sorted(str(run) for run in RUNS.iterdir() if find_model(run)) if RUNS.is_dir() else []
        given = [] if self.given is None else [self.given]
        return list(dict.fromkeys([*given, *pretrained_names(), *runs]))

    @contextmanager
    def borrowed(self, name: str) -> Iterator[SpikingDiffusionPipeline]:
        """A pipeline that nobody else uses inside the block. Its files are read again when they have changed.

        Raises:
            UserError: it is not among `names`, or is damaged or gone.
        """
        if name not in self.names():
            raise UserError(f"there is no model {name!r} here any more: reload the page for those that there are")
        key = (name, _stamp(pipeline_folder(name)))
        with self._lock:
            found = next((pair for pair in self._idle if pair[0] == key), None)
            if found is not None:
                self._idle.remove(found)
        pipeline = load_pipeline(name) if found is None else found[1]
        yield pipeline
        with self._lock:  # after an error it is left to be collected: who knows what state it is in
            self._idle = [*self._idle, (key, pipeline)][-MOST_IDLE:]


def _stamp(folder: Path) -> tuple:
    """What changes when a model does."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
