"""JSON: configs of models, states of checkpoints, manifests, results, and lines of metrics."""

import json
import os
from typing import Any

from sddpm.errors import UserError
from sddpm.opening.files import MIB, read_text

MOST_BYTES, MOST_KEYS = 64 * MIB, 10_000  # of an object


def parse_json(text: str | bytes, source: str, *, most_keys: int = MOST_KEYS) -> Any:
    """The value of a JSON text.

    Args:
        text: the text to parse.
        source: its name in error messages.
        most_keys: maximum number of keys of an object; files of this package have far fewer.

    Raises:
        UserError: not JSON, nested too deeply, an object with too many keys, or a number with too many digits.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > most_keys:
            raise UserError(f"{source} is damaged: an object in it has {len(pairs):,} keys")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=checked)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{source} is damaged: its JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is damaged: it is not valid JSON (byte {error.start} is not text)") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{source} is damaged: it is not valid JSON (line {error.lineno}: {error.msg})") from error
    except ValueError as error:  # an integer with thousands of digits
        raise UserError(f"{source} is damaged: it is not valid JSON ({error})") from error


def read_json(path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a JSON file. Raises `UserError` as `parse_json` does, or if there is no object."""
    content = parse_json(read_text(path, most_bytes, "JSON file"), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object")
    return content
