"""YAML: configs, cost models and histories."""

import re
from typing import Any

import yaml

from sddpm.errors import UserError, reason
from sddpm.opening.files import MIB, read_text

MOST_BYTES, MOST_VALUES, DEEPEST = MIB, 100_000, 50


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number (YAML 1.1 needs 1.0e-4), 1e5 an integer, and repeated keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<, which merges the keys of another mapping
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, dict | list | set) or not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is not a valid key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        value = self.construct_yaml_float(node)
        return int(value) if "e" in node.value.lower() and value.is_integer() else value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text: only plain values; tags for other objects are refused.

    Args:
        text: the text to parse.
        source: its name in error messages.

    Raises:
        UserError: not YAML; too many values, where repeated anchors count each time; nested too deeply, or in itself;
            an invalid date or number.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, source)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{source}:{line} not valid YAML: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{source}: not valid YAML: nested more than {DEEPEST} deep") from error
    except UserError:
        raise
    except Exception as error:  # ValueError, AttributeError, IndexError, ... from PyYAML, for invalid dates and numbers
        raise UserError(f"{source}: not valid YAML: invalid date or number ({reason(error)})") from error


def read_yaml(path: Any, what: str = "YAML file") -> Any:
    """The value in a YAML file. Raises `UserError` as `parse_yaml` does, or if it cannot be read."""
    return parse_yaml(read_text(path, MOST_BYTES, what), str(path))


def _check_size(root: yaml.Node, source: str) -> None:
    """Count the values of a document as if anchors were copied, without copying."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node, depth: int) -> int:
        if depth > DEEPEST:
            raise UserError(f"{source}: not valid YAML: nested more than {DEEPEST} deep, or in itself")
        if id(node) in counts:
            return counts[id(node)]
        children = [node for pair in node.value for node in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1
        if not isinstance(node, yaml.ScalarNode):
            total += sum(count(child, depth + 1) for child in children)
        if total > MOST_VALUES:
            raise UserError(f"{source}: holds more than {MOST_VALUES:,} values, including those repeated by anchors")
        counts[id(node)] = total
        return total

    count(root, 0)
