"""The settings of a visitor, and their translation to sampling options, a command line and a program."""

import shlex
from dataclasses import dataclass

from sddpm.errors import UserError
from sddpm.pipelines import SamplingOptions, SpikingDiffusionPipeline
from sddpm.pipelines.wanted import Wanted, wanted_images
from sddpm.written import listed_seeds, listed_thresholds

MOST_PICTURES = 64
BATCH_SIZE = 16  # as on the command line, so that pictures are bit-identical
OUT = "samples.png"


@dataclass(frozen=True)
class Settings:
    """The settings of a visitor. None, or an empty text, means the model's own value.

    Attributes:
        model: as in `load_pipeline`.
        seeds: such as "0-3,100".
        label: a class by name or number, "all", "none" or "random"; None for a model without classes.
        thresholds: such as "0.99x" or "up*=0.998, 0.999".
        guidance_scale, sampler, solver, steps, x0_scale, exit_tolerance: as in `SamplingOptions`.
    """

    model: str
    seeds: str = "0-3"
    label: str | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    solver: str | None = None
    steps: int | None = None
    thresholds: str = ""
    x0_scale: float | None = None
    exit_tolerance: float | None = None

    @property
    def chosen_seeds(self) -> list[int]:
        """The seeds. Raises `UserError` for an invalid list."""
        if not self.seeds.strip():
            raise UserError("give seeds, such as 0-3 or 7,100")
        return listed_seeds(self.seeds, MOST_PICTURES)

    @property
    def listed_thresholds(self) -> list[str]:
        """The thresholds one by one, as on the command line."""
        return self.thresholds.replace(",", " ").split()

    @property
    def options(self) -> SamplingOptions:
        """The sampling options. Raises `UserError` for values that are out of range for every model."""
        return SamplingOptions(
            num_inference_steps=self.steps,
            solver=self.solver,
            sampler=self.sampler,
            v_threshold=listed_thresholds(self.listed_thresholds),
            x0_scale=self.x0_scale,
            guidance_scale=1.0 if self.guidance_scale is None else self.guidance_scale,
            exit_tolerance=self.exit_tolerance,
            batch_size=BATCH_SIZE,
        )

    def wanted(self, pipeline: SpikingDiffusionPipeline) -> Wanted:
        """The pictures to draw. Raises `UserError` for invalid seeds or classes, and for too many pictures."""
        wanted = wanted_images(pipeline, self.chosen_seeds, [] if self.label is None else [self.label])
        if len(wanted.seeds) > MOST_PICTURES:
            raise UserError(
                f"{len(wanted.seeds)} pictures are too many: this page draws at most {MOST_PICTURES} at a time"
            )
        return wanted

    def command(self, out: str = OUT) -> str:
        """The command line that draws the same pictures."""
        words = ["sddpm", "sample", self.model, "--seeds", self.seeds.replace(" ", "")]
        said = {
            "--class": None if self.label == "random" else self.label,
            "--guidance-scale": self.guidance_scale if self.guidance_scale != 1 else None,
            "--sampler": self.sampler,
            "--solver": self.solver,
            "--steps": self.steps,
            "--x0-scale": self.x0_scale,
            "--exit-tolerance": self.exit_tolerance,
        }
        for option, value in said.items():
            words += [] if value is None else [option, str(value)]
        for threshold in self.listed_thresholds:
            words += ["--v-threshold", threshold]
        return shlex.join([*words, "--out", out])

    def program(self, pipeline: SpikingDiffusionPipeline) -> str:
        """The Python that draws the same pictures. Raises `UserError` as `wanted` does."""
        wanted = self.wanted(pipeline)
        options = self.options
        said = {
            "seeds": wanted.seeds,
            "class_labels": wanted.labels,
            "guidance_scale": options.guidance_scale if options.guidance_scale != 1 else None,
            "sampler": options.sampler,
            "solver": options.solver,
            "num_inference_steps": options.num_inference_steps,
            "v_threshold": options.v_threshold,
            "x0_scale": options.x0_scale,
            "exit_tolerance": options.exit_tolerance,
            "batch_size": BATCH_SIZE,
            "output_type": "pt",
        }
        arguments = "".join(f"    {name}={value!r},\n" for name, value in said.items() if value is not None)
        sheet = "image_grid" if wanted.rows is None else "class_rows"
        rows = "" if wanted.rows is None else f", {wanted.rows!r}"
        return (
            "from sddpm.data import unit_to_uint8\n"
            f"from sddpm.figures.grid import {sheet}\n"
            "from sddpm.pipelines import load_pipeline\n\n"
            f"pipe = load_pipeline({self.model!r})\n"
            f"images = pipe(\n{arguments}).images\n"
            f"{sheet}(unit_to_uint8(images){rows}, scale=None).save({OUT!r})\n"
        )
