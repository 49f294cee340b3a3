"""The public API: `from ember.api import models`."""

import sys
from typing import cast

import ember.api.models as _package
from ember.models.function import Models

__all__ = ["models"]

# The package itself is callable, which type checkers do not see: this name has the right type.
models: Models = cast("Models", sys.modules[_package.__name__])
