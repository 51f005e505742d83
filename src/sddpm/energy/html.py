"""The energy estimate as one self-contained HTML file with styles and pictures."""

import base64
import io

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from sddpm.energy import report
from sddpm.energy.account import Account
from sddpm.energy.cost import CostModel
from sddpm.energy.parts import PARTS
from sddpm.energy.pictures import pictures

ROW_CLASSES = {"real": "real", "neurons": "neurons"}  # by the column "input" of the table of layers


def as_html(account: Account, command: str) -> str:
    """The whole report, from the template next to this file.

    Args:
        account: the data of the report.
        command: the command line that reproduces it.
    """
    drawn = pictures(account)
    ledger = account.ledger
    sections = {"operations": "Operations", "energy": "Energy"}
    if ledger.spiking:
        sections |= {"formula": "The published formula, and what was counted", "time": "By SNN time step"}
    sections |= {picture.name: picture.title for picture in drawn}
    sections |= {"all-layers": "All layers", "cost-models": "Cost models"}
    layers = report.layer_table(account)
    return _template().render(
        ledger=ledger,
        twin=account.twin,
        lead=report.heading(ledger).partition(": ")[2],
        activity=report.activity_line(account.activity) if account.activity else "",
        sections=sections,
        operations=report.operations_table(account),
        energy=report.energy_table(account),
        not_counted=report.NOT_COUNTED,
        formula="; ".join(report.difference_lines(account)[:2]) if ledger.spiking else "",
        differences=_differences(account) if ledger.spiking else [],
        time=report.time_table(ledger),
        pictures=drawn,
        layers=layers,
        layer_classes=[ROW_CLASSES.get(row[3], "") for row in layers[1:]],
        costs=[(cost, _numbers(cost)) for cost in account.costs],
        command=command,
    )


def _template():
    environment = Environment(
        loader=PackageLoader("sddpm.energy", ""), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"micro": _micro, "data_url": _data}
    return environment.get_template("page.html.jinja")


def _micro(text: str) -> str:
    return text.replace(" uJ", " \N{GREEK SMALL LETTER MU}J")


def _differences(account: Account) -> list[list[str]]:
    rows = [["layer", "by the formula", "counted", "difference", "because of"]]
    for d in account.differences[: report.SHOWN_DIFFERENCES]:
        delta = d.honest - d.published
        sign = "+" if delta >= 0 else "\N{MINUS SIGN}"
        rows.append(
            [d.name, report.joules(d.published), report.joules(d.honest), sign + report.joules(abs(delta)), d.reason]
        )
    return rows


def _data(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _numbers(cost: CostModel) -> str:
    """The costs of each part in a cost model, in words."""
    return "; ".join(filter(None, (part.numbers(cost) for part in PARTS.values())))
