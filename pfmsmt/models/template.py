"""The parameter template: every tensor of a model has one role.

The module that owns the tensor gives it the role, and the groups in which it is aggregated.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pfmsmt.core.errors import SchemaError
from pfmsmt.core.types import NamedArrays, Role, Slot, Template


class TensorLabel(NamedTuple):
    """Role of one tensor, and the groups in which it is aggregated."""

    role: Role
    groups: tuple[str, ...]
    """One group: the whole tensor. Several: its slices along the first axis, one each (an expert, a task)."""


@runtime_checkable
class Labelled(Protocol):
    """A module that owns tensors."""

    def labels(self) -> dict[str, TensorLabel]:
        """Return tensor name -> label, for every tensor in the module.

        Names are relative to the module.
        """
        ...


class _Place(NamedTuple):
    tensor: Tensor
    part: int | None


class Binding:
    """Ties a model's tensors to the names under which they travel.

    A name is `<group>/<name in its module>`.
    """

    def __init__(self, model: nn.Module, apart: Tensor | None = None) -> None:
        """Label every parameter and every persistent buffer of `model`.

        Args:
            model: whose tensors they are.
            apart: one of its tensors that is too large to be copied: `read` leaves it out.

        Raises:
            SchemaError: a tensor without a role or with two, slices that do not match its groups, or two tensors
                that would travel under one name.
        """
        # Buffers that a module derives from its shapes (not persistent) are constants, not state.
        tensors = dict(model.state_dict(keep_vars=True))
        labels: dict[str, TensorLabel] = {}
        self._places: dict[str, _Place] = {}
        self._apart = apart
        slots: dict[str, Slot] = {}
        for path, local, label in _labels(model):
            full = f"{path}.{local}" if path else local
            if full in labels:
                raise SchemaError(f"tensor {full!r} has two roles: {labels[full].role} and {label.role}")
            labels[full] = label
        if tensors.keys() != labels.keys():
            raise SchemaError(
                f"tensors without a role: {sorted(tensors.keys() - labels.keys())}; "
                f"roles without a tensor: {sorted(labels.keys() - tensors.keys())}"
            )
        for path, local, label in _labels(model):
            full = f"{path}.{local}" if path else local
            if len(label.groups) != 1 and tuple(tensors[full].shape[:1]) != (len(label.groups),):
                raise SchemaError(
                    f"tensor {full!r} has shape {tuple(tensors[full].shape)}, but {len(label.groups)} groups for slices"
                )
            for index, group in enumerate(label.groups):
                name = f"{group}/{local}"
                if name in slots:
                    raise SchemaError(f"tensor {full!r} would travel as {name!r}, which is another tensor's name")
                self._places[name] = _Place(tensors[full], index if len(label.groups) > 1 else None)
                slots[name] = Slot(label.role, group)
        self.template: Template = slots
        self._roles = {id(tensors[name]): label.role for name, label in labels.items()}

    def name(self, tensor: Tensor) -> str:
        """Return the name under which one of the model's tensors travels."""
        return next(name for name, place in self._places.items() if place.tensor is tensor and place.part is None)

    def role(self, tensor: Tensor) -> Role:
        """Return the role of one of the model's own tensors."""
        return self._roles[id(tensor)]

    def read(self, roles: Collection[Role] | None = None) -> dict[str, NDArray[np.generic]]:
        """Return copies of tensors as named arrays.

        Of all roles, or of some.
        """
        result = {}
        for name, (tensor, part) in self._places.items():
            if tensor is not self._apart and (roles is None or self.template[name].role in roles):
                values = tensor.detach() if part is None else tensor.detach()[part]
                result[name] = values.cpu().numpy().copy()
        return result

    @torch.no_grad()
    def write(self, arrays: NamedArrays) -> None:
        """Copy named arrays into the model.

        Tensors that are not named stay as they are.

        Raises:
            SchemaError: an unknown name, or a shape that does not fit.
        """
        for name, array in arrays.items():
            if name not in self._places:
                raise SchemaError(f"the model has no tensor {name!r}")
            tensor, part = self._places[name]
            target = tensor if part is None else tensor[part]
            if target.shape != array.shape:
                raise SchemaError(f"tensor {name!r} has shape {array.shape}, the model needs {tuple(target.shape)}")
            target.copy_(torch.as_tensor(array))


def _labels(model: nn.Module) -> Iterator[tuple[str, str, TensorLabel]]:
    for path, module in model.named_modules():
        if isinstance(module, Labelled):
            for local, label in module.labels().items():
                yield path, local, label
