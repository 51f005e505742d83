"""Reads a YAML file and overrides into a checked `Config`. Errors name the key and the nearest valid one."""

import json
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

import sddpm
from sddpm.choices import did_you_mean, nearest
from sddpm.errors import UserError
from sddpm.files.names import is_utf8
from sddpm.opening.yaml_files import parse_yaml, read_yaml
from sddpm.training.config import HARMLESS, KINDS, Config, DistillConfig, SpikingConfig

# In a wheel the configs lie inside the package; in a source tree in configs/ at its root.
_PACKAGE = Path(sddpm.__file__).parent
CONFIG_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent.parent / "configs")


def config_names() -> list[str]:
    """The configs that come with the project, by name."""
    return sorted({path.stem for folder in CONFIG_FOLDERS for path in folder.glob("*.yaml")})


def summary(name: str) -> str:
    """The purpose of the config with that name: the comment on its first line."""
    with find_config(name).open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def find_config(name: str | Path) -> Path:
    """The file of a config: a path to a YAML, or the name of one that comes with the project.

    Raises:
        UserError: there is no such config.
    """
    if Path(name).is_file():
        return Path(name)
    for folder in CONFIG_FOLDERS:
        if (path := folder / f"{name}.yaml").is_file():
            return path
    hint = did_you_mean(str(name), config_names(), f"the configs are {', '.join(config_names())}")
    raise UserError(f"no config {str(name)!r}, neither a file nor a name: {hint}")


def load_config(name: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Config:
    """Read and check a config.

    Args:
        name: path of a YAML, or the name of one that comes with the project, e.g. "mnist_small".
        overrides: "section.key=value", with the value written as in YAML; later ones win. Or a mapping, such as
            {"train.steps": 30} or {"train": {"steps": 30}}.

    Raises:
        UserError: no such file, invalid YAML, an unknown key or a value of the wrong type; the message names the file.
    """
    path = find_config(name)
    values = read_yaml(path, "config") or {}
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected sections data, model, diffusion, train, not {type(values).__name__}")
    merged = {key: dict(section) if isinstance(section, Mapping) else section for key, section in values.items()}
    overridden = set()
    for key, value in as_pairs(overrides):
        section, name_of_value = key.split(".", 1)
        if not isinstance(merged.setdefault(section, {}), dict):
            raise UserError(f"{path}: {section} must be a section with keys, not {merged[section]!r}")
        merged[section][name_of_value] = value
        overridden.add(key)
    if "model.kind" in overridden:
        merged["model"] = _without_keys_of_other_kinds(merged["model"], overridden)
    return check_config(merged, str(path), overridden)


def _without_keys_of_other_kinds(section: Mapping[str, Any], overridden: Container[str]) -> dict[str, Any]:
    """A model section whose kind was overridden, without the file's keys that the new kind does not have."""
    kind = KINDS.get(str(section["kind"]), SpikingConfig)
    return {key: value for key, value in section.items() if key in kind.model_fields or f"model.{key}" in overridden}


def check_config(values: Mapping[str, Any], source: str, overridden: Iterable[str] = ()) -> Config:
    """Validate plain values. Errors name `source`, or `overrides` for the `overridden` keys."""
    if not is_utf8(json.dumps(values, default=str, ensure_ascii=False)):
        raise UserError(f"{source}: a value is not UTF-8: rename the file or folder that it names")
    try:
        # Strictly, as JSON: a list is accepted for a tuple, but neither true nor "3" for a number.
        return Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        keys, _ = _locate(first)
        here = ".".join(keys[:2])
        where = "`overrides`" if any(f"{key}.".startswith(f"{here}.") for key in overridden) else source
        raise UserError(f"{where}: {_explain(first)}") from error


def changed_keys(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Keys in which two configs (as `Config.to_dict`) differ and that change what is learned."""
    pairs = {(section, key) for config in (before, now) for section, keys in config.items() for key in keys}
    default = Config().to_dict()  # for keys that an older config does not have

    def value(config: Mapping[str, Mapping[str, Any]], section: str, key: str) -> Any:
        return config.get(section, {}).get(key, default.get(section, {}).get(key))

    differing = {
        f"{section}.{key}" for section, key in pairs if value(before, section, key) != value(now, section, key)
    }
    return sorted(differing - HARMLESS)


def to_yaml(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def as_pairs(overrides: Iterable[str] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """("section.key", value) of each override. Raises `UserError` for an invalid override."""
    if isinstance(overrides, str):
        overrides = [overrides]
    if not isinstance(overrides, Mapping):
        return [_parse_override(override) for override in overrides]
    pairs: list[tuple[str, Any]] = []
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and "." not in str(key)
        pairs += [(f"{key}.{name}", each) for name, each in value.items()] if nested else [(str(key), value)]
    for key, _ in pairs:
        if key.count(".") != 1 or not all(key.split(".")):
            raise UserError(
                f'`overrides`: {key!r} is not a key: write {{"train.lr": 1e-4}} or {{"train": {{"lr": 1e-4}}}}'
            )
    return pairs


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or key.count(".") != 1 or not all(key.strip().split(".")):
        raise UserError(f"`overrides={text}`: write section.key=value, e.g. train.lr=1e-4")
    return key.strip(), parse_yaml(value, f"`overrides={text}`")


def _explain(detail: ErrorDetails) -> str:
    keys, sections = _locate(detail)
    if not keys:
        return detail["msg"]
    if detail["type"] == "extra_forbidden":
        return _explain_unknown(keys, sections)
    section = sections.get(keys[0])
    field = section.model_fields.get(keys[1]) if section is not None and len(keys) > 1 else None
    meaning = f" ({field.description})" if field is not None and field.description else ""
    problem = detail["msg"].replace("Input should be", "should be").replace("valid integer", "whole number")
    return f"{'.'.join(keys[:2])} = {detail['input']!r} {problem}{meaning}"


def _explain_unknown(keys: list[str], sections: Mapping[str, type[BaseModel]]) -> str:
    here = ".".join(keys)
    fields = {f"{section}.{key}": field for section, model in sections.items()
              for key, field in model.model_fields.items()}  # fmt: skip
    known = [*fields, *sections] if len(keys) == 1 else list(fields)
    words = keys[-1].lower().replace("_", " ")
    near = (
        [key for key in known if key.rpartition(".")[2] == keys[-1]]
        or [key for key in [nearest(here, known, cutoff=0.75)] if key is not None]
        or [key for key, field in fields.items() if (field.description or "").lower().startswith(words)]
    )
    if near:
        return f"unknown key {here!r}; did you mean {near[0]!r}?"
    options = sections[keys[0]].model_fields if len(keys) > 1 and keys[0] in sections else sections
    return f"unknown key {here!r}; the keys are {', '.join(options)}"


def _locate(detail: ErrorDetails) -> tuple[list[str], Mapping[str, type[BaseModel]]]:
    """The keys that lead to an error, without the model kind that pydantic inserts, and all sections."""
    keys = [str(part) for part in detail["loc"]]
    kind = keys.pop(1) if keys[:1] == ["model"] and len(keys) > 1 else "spiking"
    sections: dict[str, Any] = {name: field.annotation for name, field in Config.model_fields.items()}
    return keys, sections | {"model": KINDS[kind], "distill": DistillConfig}
