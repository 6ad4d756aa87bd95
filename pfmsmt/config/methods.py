"""The `methods` block: one for each method, and one that is shared."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator

from pfmsmt.config.blocks import Federated, PrivateTraining
from pfmsmt.config.declared import METHODS, PACKAGES, DeclaredMethod
from pfmsmt.config.kinds import Frozen

WITH_SHARED = tuple(name for name, found in METHODS.items() if issubclass(found.block, Federated))
"""Names of the methods that have what `methods.shared` has."""
WITH_PRIVATE_SHARED = tuple(
    name
    for name, found in METHODS.items()
    # References have their own rates: they are no part of a federation that could share values.
    if found.deployable and issubclass(found.block, PrivateTraining) and name not in WITH_SHARED
)
"""Names of those without a server optimiser, which have its keys of private training alone."""


def shared_keys(method: str) -> frozenset[str]:
    """Return the keys of `methods.shared` that a method has as well.

    None of a method that is not federated.
    """
    if method in WITH_SHARED:
        return frozenset(Federated.model_fields)
    return frozenset(PrivateTraining.model_fields if method in WITH_PRIVATE_SHARED else ())


class _Shared(Frozen):
    """One block for each method.

    A federated method has what `shared` has where its own block is silent.
    """

    shared: Federated = Field(default=Federated(), description="What all federated methods have in common.")

    @model_validator(mode="before")
    @classmethod
    def _take_what_is_shared(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        try:
            shared = Federated.model_validate(tree.get("shared", {}))
        except ValidationError:
            # It is reported where it stands, not at every method as well.
            return tree
        common = {key: getattr(shared, key) for key in shared.model_fields_set}
        blocks = {name: tree.get(name, {}) for name in (*WITH_SHARED, *WITH_PRIVATE_SHARED)}
        merged = {
            name: {**{key: value for key, value in common.items() if key in shared_keys(name)}, **block}
            for name, block in blocks.items()
            if isinstance(block, dict)
        }
        return {**tree, **merged}


def _block(found: DeclaredMethod) -> type[Frozen]:
    """Return the model of a method's block.

    That of another package has a key more, which says which one.
    """
    package = PACKAGES.get(found.name)
    if package is None:
        return found.block

    def is_installed(written: str) -> str:
        if written != package:
            raise ValueError(
                f"{package} is installed; write that, and the method is trained again, or install {written}"
            )
        return written

    meaning = "Distribution and version that the method is from; where it is written, another version trains anew."
    model = create_model(
        f"PackageBlock_{found.name}", __base__=found.block, __module__=__name__, __doc__=found.block.__doc__,
        package=(Annotated[str, AfterValidator(is_installed)], Field(default=package, description=meaning)),
    )  # fmt: skip
    # A worker of a search gets its settings pickled, and looks for their classes in this module.
    globals()[model.__name__] = model
    return model


def _fields(methods: Mapping[str, DeclaredMethod]) -> dict[str, Any]:
    blocks = {name: _block(found) for name, found in methods.items()}
    return {name: (block, Field(default=block(), description=methods[name].meaning)) for name, block in blocks.items()}


if TYPE_CHECKING:

    class Methods(_Shared):
        """One block for each method."""

        def __getattr__(self, name: str) -> Any:
            """Return a method's block."""
else:
    Methods = create_model(
        "Methods", __base__=_Shared, __module__=__name__, __doc__=_Shared.__doc__, **_fields(METHODS)
    )
