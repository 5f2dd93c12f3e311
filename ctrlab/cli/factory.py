"""Modules named on the command line as `module:function`. The dashboard never imports names sent by a browser."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrlab.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def make_module(factory: str) -> "tuple[nn.Module, Iterable[Any]]":
    """Call `factory`, written `module:function`; the working folder is searched for the module too.

    Returns:
        The function's result: the module and the calibration batches.

    Raises:
        ConfigError: there is no such function, or it returns something else.
    """
    module_name, _, function_name = factory.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"the factory must be written module:function, such as train:make; got {factory!r}")
    made = _function(module_name, function_name)()
    if not isinstance(made, tuple) or len(made) != 2 or not hasattr(made[0], "named_modules"):
        raise ConfigError(f"{factory} must return a pair (module, batches); got {type(made).__name__}")
    return made


def _function(module_name: str, name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module_name} cannot be imported ({error}); start ctrlab in the folder of {module_name}.py"
        ) from error
    if not callable(getattr(module, name, None)):
        raise ConfigError(f"{module_name} has no function {name}")
    return getattr(module, name)
