"""All data of a report, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

from sddpm.energy.activity import Activity
from sddpm.energy.cost import CostModel
from sddpm.energy.ledger import Ledger
from sddpm.energy.published import Difference, compare


@dataclass(frozen=True)
class Account:
    """All data of a report. costs: the cost models; figures that show one use the first. twin: ledger of the ANN, None
    if the model is one. activity: recordings of the neurons, if made."""

    ledger: Ledger
    costs: Sequence[CostModel]
    twin: Ledger | None = None
    activity: Activity | None = None

    @property
    def differences(self) -> list[Difference]:
        """Differences to the published formula, in pJ for one evaluation of one image."""
        runs = self.ledger.network_runs
        differences = compare(self.ledger.layers, self.costs[0])
        return [Difference(d.name, d.published / runs, d.honest / runs, d.reason) for d in differences]

    @property
    def published(self) -> float:
        """pJ for one evaluation of one image by the published formula."""
        return sum(difference.published for difference in self.differences)

    def saving(self, cost: CostModel) -> float | None:
        """The saved share of the ANN's energy, negative if the spiking network costs more; None if there is no twin, or
        its operations cost nothing."""
        twin = 0.0 if self.twin is None else self.twin.per_evaluation(cost).total
        return 1 - self.ledger.per_evaluation(cost).total / twin if twin else None
