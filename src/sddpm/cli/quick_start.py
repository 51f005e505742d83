"""A quicker start of commands that only sample: imports that they do not need are left out or postponed."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_diffusers() -> None:
    """Import diffusers without torch._dynamo and parts of scipy, which take half of the time.

    torch.compile needs the former, schedulers that are not used here the latter. All can still be imported. Only
    diffusers' marks for torch.compile are missing then, so a command that compiles must not call this.
    """
    if "diffusers" in sys.modules:
        return
    import torch  # noqa: F401  first, since it looks into all modules

    for name in ("scipy.integrate", "scipy.stats"):
        sys.modules.setdefault(name, Postponed(name))
    without = "torch._dynamo" not in sys.modules
    if without:
        sys.modules["torch._dynamo"] = None  # type: ignore[assignment]  its import fails, as diffusers expects
    try:
        import diffusers.utils.torch_utils  # noqa: F401
    finally:
        if without:
            del sys.modules["torch._dynamo"]


class Postponed(ModuleType):
    """Stands for a module that is imported when an attribute of it is first used. (The standard library's `LazyLoader`
    imports it at the next `import` statement.)"""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute != "__path__":  # what others look for in every module
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)
