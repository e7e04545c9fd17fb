"""A tracker's client: a package of others that is an extra of ours."""

import os
from typing import Any

from rlgen_cli.core.extras import imported


def client(name: str, **environment: str) -> Any:
    """The client's module.

    Args:
        name: the package and the extra that installs it. environment: variables that the client reads when it is
            imported; what the user has set stays.

    Raises:
        UserError: where it is not installed.
    """
    for variable, value in environment.items():
        os.environ.setdefault(variable, value)
    return imported(name, name, f"_target_: needs {name}:")
