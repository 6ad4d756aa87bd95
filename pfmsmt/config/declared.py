"""The methods that settings may name, as their declarations say.

This room stands below that of the methods, and knows none of them. It asks for them by the name of one function, when
the settings' models are made: no import from above, as a program asks its plug-ins. A method's file imports
`pfmsmt.config.kinds` and `pfmsmt.config.blocks`, which do not come here.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, cast

from pfmsmt.config.kinds import Frozen

_DISCOVERY = "pfmsmt.methods.discovery"


class DeclaredMethod(Protocol):
    """The part of a method's declaration that concerns settings."""

    @property
    def name(self) -> str:
        """Name of the method and of its block."""
        ...

    @property
    def block(self) -> type[Frozen]:
        """Model of its block; every key has a default."""
        ...

    @property
    def meaning(self) -> str:
        """One sentence about it."""
        ...

    @property
    def deployable(self) -> bool:
        """Whether its models may be registered."""
        ...


_found = importlib.import_module(_DISCOVERY).find_methods()

METHODS = cast("Mapping[str, DeclaredMethod]", _found.methods)
"""name -> declaration, in the order of tables and pages."""
PACKAGES = cast("Mapping[str, str]", _found.packages)
"""Name of a method of another package -> that distribution and its version."""
BROKEN = cast("Mapping[str, str]", _found.broken)
"""Name of a method of another package that cannot be used -> why, and what to do."""
METHOD_NAMES: tuple[str, ...] = tuple(METHODS)
if TYPE_CHECKING:
    MethodName = str
    Deployable = str
else:
    MethodName = Literal[METHOD_NAMES]
    Deployable = Literal[tuple(name for name, found in METHODS.items() if found.deployable)]
