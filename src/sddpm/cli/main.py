"""The `sddpm` command: gathers the verbs, one file each in this folder, and turns errors into exit codes."""

import os
import sys
import warnings

from sddpm.cli import (  # noqa: F401  each verb adds itself
    app_page,
    average,
    convert,
    convert_ann,
    distill,
    ema,
    energy,
    evaluate,
    export,
    guide,
    info,
    inpaint,
    interpolate,
    listing,
    moments,
    pack,
    release,
    sample,
    stats,
    train,
)
from sddpm.cli.app import app as app
from sddpm.cli.failures import end_on_signals, fail


def run() -> None:
    """Entry point. A failure is one line on stderr. `UserError` and errors of the system have exit code 2, Ctrl-C has
    130. Anything else is a bug in the package: its traceback goes to a file, with exit code 1."""
    end_on_signals()
    if sys.stderr is None:  # closed by the caller, as by 2>&-
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
    warnings.filterwarnings("ignore", "Image size .* decompression bomb")  # Pillow's; larger images are refused anyway
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(fail(error))
