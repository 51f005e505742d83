"""The account as one HTML file that needs nothing else: styles and pictures are inside."""

import base64
import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from sddpm.energy import report
from sddpm.energy.account import Account
from sddpm.energy.pictures import Picture, pictures

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1000px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.6em; margin-bottom: 0.2em; } h2 { font-size: 1.15em; margin: 2.2em 0 0.3em; }
p.caption, p.lead { color: #555; margin: 0.2em 0 0.8em; } nav { margin: 1em 0; } nav a { margin-right: 1em; }
a { color: #1b6ca8; } img { max-width: 100%; height: auto; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.22em 0.8em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 1px solid #999; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
table.reasons th:last-child, table.reasons td:last-child { text-align: left; }
td.wrap { white-space: normal; text-align: left; }
table.small { font-size: 12px; } tr.real td { color: #a32020; } tr.neurons td { color: #777; }
"""


def as_html(account: Account, command: str) -> str:
    """The whole report.

    Args:
        account: what it is about.
        command: the command line that makes it again.
    """
    drawn = pictures(account)
    ledger = account.ledger
    sections = [
        ("operations", "Operations", _table(report.operations_table(account))),
        ("energy", "Energy", _energy(account)),
    ]
    if ledger.spiking:
        sections += [
            ("formula", "The published formula, and what was counted", _differences(account)),
            ("time", "By SNN time step", _table(report.time_table(ledger))),
        ]
    sections += [(picture.name, picture.title, _picture(picture)) for picture in drawn]
    sections += [
        ("all-layers", "All layers", _layers(account)),
        ("cost-models", "Cost models", _cost_models(account)),
    ]
    links = "".join(f'<a href="#{escape(name)}">{escape(title)}</a> ' for name, title, _ in sections)
    body = "".join(f'<h2 id="{escape(name)}">{escape(title)}</h2>\n{content}\n' for name, title, content in sections)
    activity = f"<p>{escape(report.activity_line(account.activity))}</p>" if account.activity else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Energy of {escape(ledger.title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>Energy of {escape(ledger.title)}</h1>\n"
        f'<p class="lead">{escape(report.heading(ledger).partition(": ")[2])}. Numbers are for one image.</p>\n'
        f"{activity}<nav>{links}</nav>\n{body}"
        f'<h2>Made with</h2><p class="caption"><code>{escape(command)}</code></p>\n</body></html>\n'
    )


def _table(rows: Sequence[Sequence[str]], name: str = "", classes: Sequence[str] = ()) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for i, row in enumerate(body):
        kind = f' class="{classes[i]}"' if i < len(classes) and classes[i] else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>")
    return f'<div class="scroll"><table class="{name}">\n' + "\n".join(lines) + "\n</table></div>"


def _text(text: str) -> str:
    return escape(text.replace(" uJ", " \N{GREEK SMALL LETTER MU}J"))


def _energy(account: Account) -> str:
    note = report.NOT_COUNTED
    if account.twin:
        note += " The ANN twin is an untrained UNet2DModel of the same widths, counted the same way."
    return f'{_table(report.energy_table(account))}<p class="caption">{escape(note)}</p>'


def _differences(account: Account) -> str:
    first, second, *_ = report.difference_lines(account)
    rows = [["layer", "by the formula", "counted", "difference", "because of"]]
    for d in account.differences[: report.SHOWN_DIFFERENCES]:
        delta = d.honest - d.published
        sign = "+" if delta >= 0 else "\N{MINUS SIGN}"
        rows.append(
            [d.name, report.joules(d.published), report.joules(d.honest), sign + report.joules(abs(delta)), d.reason]
        )
    return f"<p>{_text(first)}; {_text(second)}:</p>" + _table(rows, "reasons")


def _picture(picture: Picture) -> str:
    image = f'<img alt="{escape(picture.title)}" src="{_data(picture.figure)}">'
    return f'<p class="caption">{escape(picture.caption)}</p>\n{image}'


def _data(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _layers(account: Account) -> str:
    rows = report.layer_table(account)
    kinds = {"real": "real", "neurons": "neurons"}
    note = '<p class="caption">Red: layers whose input is real-valued, checked on the data. Grey: neurons.</p>'
    return note + _table(rows, "small", [kinds.get(row[3], "") for row in rows[1:]])


def _cost_models(account: Account) -> str:
    rows = []
    for cost in account.costs:
        memory = cost.memory
        traffic = (
            f"; {memory.pj_per_bit:g} pJ a bit, {memory.bits_per_mac:g} bits a MAC, {memory.bits_per_ac:g} an AC, "
            f"{memory.bits_per_update:g} an update"
            if memory
            else ""
        )
        numbers = (
            f"MAC {cost.mac_pj:g}, AC {cost.ac_pj:g}, update {cost.update_pj:g}, leak {cost.leak_pj:g} pJ{traffic}"
        )
        rows.append(
            f'<tr><td>{escape(cost.name)}</td><td class="wrap">{escape(cost.description)}.<br>{escape(numbers)}.<br>'
            f"<small>{escape(cost.source)}</small></td></tr>"
        )
    return "<table>\n" + "\n".join(rows) + "\n</table>"
