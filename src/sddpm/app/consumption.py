"""The energy of a picture while it is sampled, compared with the ANN, for any cost model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from sddpm.app.drawing import captions_of, one_picture
from sddpm.app.settings import Settings
from sddpm.data import to_uint8
from sddpm.energy import CostModel, energy_of
from sddpm.energy.counts import each_step
from sddpm.energy.ledger import Evaluation, Ledger
from sddpm.energy.measure import deployed, measure_sampling
from sddpm.energy.twin import twin_ledger
from sddpm.pipelines import DenoisingStep, SpikingDiffusionPipeline


@dataclass(frozen=True)
class Consumption:
    """The energy of one picture so far.

    settings: the visitor's settings. caption: description of the picture. picture: uint8 [C, H, W], its current state.
    evaluations: the counts of each. total: number of evaluations. T: SNN time steps of the network. twin: ledger of one
    evaluation of the ANN. runs: evaluations of the network per solver evaluation: 2 with guidance, else 1.
    """

    settings: Settings
    caption: str
    picture: Tensor
    evaluations: tuple[Evaluation, ...]
    total: int
    T: int
    twin: Ledger
    runs: int

    @property
    def snn_steps(self) -> float:
        """Average number of SNN time steps per evaluation."""
        return sum(evaluation.snn_steps for evaluation in self.evaluations) / len(self.evaluations)

    def growth(self, cost: CostModel) -> list[float]:
        """pJ after each evaluation."""
        return list(accumulate(energy_of(evaluation.layers, cost).total for evaluation in self.evaluations))

    def twin_growth(self, cost: CostModel) -> list[float]:
        """pJ of the ANN after each evaluation."""
        return list(accumulate([self.runs * self.twin.per_evaluation(cost).total] * len(self.evaluations)))

    def saving(self, cost: CostModel) -> float | None:
        """The saved share of the ANN's energy, negative if the spikes cost more; None if the ANN costs nothing."""
        twin = self.twin_growth(cost)[-1]
        return 1 - self.growth(cost)[-1] / twin if twin else None

    def by_snn_step(self, cost: CostModel) -> list[float]:
        """pJ if each evaluation ended after 1, 2, ... SNN time steps: earlier spikes do not depend on later ones.
        Layers that run once count for the first time step."""
        added = [0.0] * self.T
        for evaluation in self.evaluations:
            for layer in evaluation.layers:
                for n, part in enumerate(each_step(layer)):
                    added[n] += energy_of([part], cost).total
        return list(accumulate(added))


def consume(
    pipeline: SpikingDiffusionPipeline, settings: Settings, report: Callable[[Consumption], None] = lambda _: None
) -> Consumption:
    """Draw one picture and measure the energy of every evaluation; `report` receives it after every evaluation.

    Raises:
        UserError: more than one seed, settings that are invalid for this model, or a model without spikes.
    """
    wanted, options = one_picture(pipeline, settings)
    counted = deployed(pipeline)
    runs = 1 if options.guidance_scale == 1 else 2
    shape = pipeline.unet.config
    black = torch.zeros(shape.in_channels, shape.sample_size, shape.sample_size, dtype=torch.uint8)
    made = Consumption(
        settings,
        captions_of(pipeline, wanted)[0],
        black,
        (),
        pipeline.evaluations_of(options),
        shape["T"],
        twin_ledger(pipeline),
        runs,
    )

    def after(step: DenoisingStep, evaluation: Evaluation) -> None:
        nonlocal made
        picture = to_uint8(step.x_prev[0].cpu())
        made = replace(made, picture=picture, evaluations=(*made.evaluations, evaluation))
        report(made)

    measure_sampling(counted, wanted.seeds, class_labels=wanted.labels, options=options, callback=after)
    return made
