"""What users import: `from ember.api import models`."""

import sys
from typing import cast

import ember.api.models as _package
from ember.models.function import Models

__all__ = ["models"]

# The package itself can be called (see there); type checkers see a package, and this name's type.
models: Models = cast("Models", sys.modules[_package.__name__])
