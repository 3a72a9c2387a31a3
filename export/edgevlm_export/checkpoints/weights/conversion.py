"""Parameters made of stored tensors by transformers' own operations: merged experts, packed q, k and v, and others.

A checkpoint may lie in another layout than the model has, and transformers converts it while it loads. Here every
parameter is made by the same operations when it is read, alone, so that no more is in memory than what it is made of
and what the same operations make beside it. Before anything is read the operations run on shapes alone, PyTorch's meta
device, which tells every parameter's shape and type, and whether the layout can be converted at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightConverter

from edgevlm_export.checkpoints.weights.names import Names, in_order
from edgevlm_export.checkpoints.weights.shards import DTYPES, FLOATS, StoredTensor, Weight, dtype_name
from edgevlm_runtime.errors import CheckpointError, UnsupportedModel, reason

SHOWN = 3
"""Stored tensors that an error line names; of further ones there is the number."""


@dataclass(frozen=True, slots=True)
class Source:
    """One of the tensors that parameters are made of."""

    pattern: str
    """The converter's pattern that took it."""
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class Conversion:
    """What one application of a converter takes and makes."""

    converter: WeightConverter
    first: str
    """The first parameter that it makes."""
    sources: tuple[Source, ...]
    model: PreTrainedModel
    """Shapes and config, which some operations ask for."""

    def make(self, read: Callable[[StoredTensor], Tensor]) -> dict[str, Tensor]:
        """Every parameter, of tensors as `read` has them. Raises what the operations raise."""
        converter = copy.deepcopy(self.converter)  # it collects tensors
        for source in self.sources:
            later = partial(read, source.tensor)
            converter.add_tensor(self.first, source.tensor.name, source.pattern, later)
        made = converter.convert(self.first, model=self.model, config=self.model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    @property
    def absent(self) -> list[str]:
        """Source patterns of which nothing is stored."""
        taken = {source.pattern for source in self.sources}
        return [pattern for pattern in self.converter.source_patterns if pattern not in taken]

    @property
    def path(self) -> Path:
        """The file of the first source."""
        return self.sources[0].tensor.path

    @property
    def says(self) -> str:
        """The stored tensors, for people."""
        names = [source.tensor.name for source in self.sources]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{', '.join(names[:SHOWN])}{more}"


@dataclass(frozen=True, slots=True)
class ConvertedTensor:
    """A parameter that is made when it is read; see `Weight`."""

    conversion: Conversion
    parameter: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The file of the first tensor that it is made of."""
        return self.conversion.path

    @property
    def name(self) -> str:
        """The stored tensors that it is made of, for people."""
        return self.conversion.says

    @property
    def place(self) -> Hashable:
        """See `Weight`."""
        return self.parameter, *(source.tensor.place for source in self.conversion.sources)

    def read(self) -> Tensor:
        """The tensor, in memory of its own. Raises `CheckpointError`."""
        try:
            made = self.conversion.make(StoredTensor.read)[self.parameter]
        except CheckpointError:
            raise
        except Exception as error:  # what PyTorch raises: the operations themselves were tried on shapes
            raise _cannot(self.conversion, error) from error
        whole = made.untyped_storage().nbytes() == made.nbytes
        return made.contiguous() if whole else made.clone(memory_format=torch.contiguous_format)

    def rows(self, start: int, stop: int) -> Tensor:
        """[stop - start, ...]: a part along the first dimension, of the whole that is made for it."""
        return self.read()[start:stop].clone()


def parameters(found: Iterable[StoredTensor], model: PreTrainedModel) -> dict[str, Weight]:
    """The stored tensors as parameters of `model`, renamed and converted as transformers does; what is no parameter of
    it keeps a name of its own.

    Raises `CheckpointError` where two tensors would become one parameter, where one of several that make a parameter is
    missing, or where they do not fit together, and `UnsupportedModel` for what cannot be converted tensor by tensor.
    """
    names = Names.of(model)
    groups: dict[str, list[Source | StoredTensor]] = {}
    for stored in in_order(found):
        place = names.place(stored.name)
        taken = stored if place.pattern is None else Source(place.pattern, stored)
        groups.setdefault(place.parameter, []).append(taken)
    made: dict[str, Weight] = {}
    shapes: PreTrainedModel | None = None
    for name, group in groups.items():
        sources = tuple(one for one in group if isinstance(one, Source))
        plain = [one for one in group if isinstance(one, StoredTensor)]
        if name in names.state:
            _check_one_origin(name, plain, sources, names)
        elif not plain:
            continue  # a part that the model does not have
        if plain:
            _add(made, {name: plain[-1]}, names.state)
            continue
        shapes = shapes or copy.deepcopy(model).to("meta")  # as it is now: planning changes modules
        conversion = Conversion(names.converter(sources[0].pattern), name, sources, shapes)
        _add(made, _converted(conversion, names.state), names.state)
    return made


def _check_one_origin(name: str, plain: list[StoredTensor], sources: tuple[Source, ...], names: Names) -> None:
    """A parameter is one stored tensor, or made by one converter, of sources that are there once."""
    if plain and len(group := [*plain, *(source.tensor for source in sources)]) > 1:
        _refuse_two(name, *group[:2])
    seen: dict[str, StoredTensor] = {}
    for source in sources:
        if names.converter(source.pattern) is not names.converter(sources[0].pattern):
            _refuse_two(name, sources[0].tensor, source.tensor)
        first = seen.setdefault(names.before(source.tensor.name), source.tensor)
        if first is not source.tensor:
            _refuse_two(name, first, source.tensor)


def _add(made: dict[str, Weight], new: Mapping[str, Weight], state: Mapping[str, object]) -> None:
    for name, weight in new.items():
        if name in made and name in state:
            _refuse_two(name, made[name], weight)
        made[name] = weight


def _refuse_two(name: str, one: Weight, other: Weight) -> None:
    raise CheckpointError(
        f"two weights for one parameter: {one.path}: {one.name} and {other.name} both become {name}: take one out, or "
        "load the checkpoint in transformers and save it with save_pretrained()"
    )


def _converted(conversion: Conversion, state: Mapping[str, Tensor]) -> dict[str, Weight]:
    """The parameters that a conversion makes, known by shape and type."""
    for source in conversion.sources:
        if source.tensor.dtype not in FLOATS:
            raise UnsupportedModel(
                f"weight is not a plain float: {source.tensor.path}: {source.tensor.name} is {source.tensor.dtype}: "
                "export the original"
            )
    try:
        made = conversion.make(_shape_alone)
    except Exception as error:  # operations check what they are given by whatever they happen to do with it
        _check_all_there(conversion)
        raise _cannot(conversion, error) from error
    if any(name in state and value.shape != state[name].shape for name, value in made.items()):
        _check_all_there(conversion)
    return {
        name: ConvertedTensor(conversion, name, dtype_name(value.dtype), tuple(value.shape))
        for name, value in made.items()
    }


def _shape_alone(stored: StoredTensor) -> Tensor:
    return torch.empty(stored.shape, dtype=DTYPES[stored.dtype], device="meta")


def _check_all_there(conversion: Conversion) -> None:
    """Raise `CheckpointError` where one of a converter's sources is not stored."""
    target = conversion.converter.target_patterns[0]
    missing = [conversion.first.replace(target, pattern) for pattern in conversion.absent]
    for pattern in conversion.converter.source_patterns:
        missing += _gaps([source.tensor.name for source in conversion.sources if source.pattern == pattern])
    if missing:
        raise CheckpointError(
            f"weight missing from the checkpoint: {missing[0]}: {conversion.path}: {conversion.first} is made of it "
            f"and {conversion.says}: download the checkpoint again"
        )


def _gaps(names: list[str]) -> list[str]:
    """Of names that differ in one number, those between the first and the last that are not there."""
    parts = [name.split(".") for name in names]
    places = [index for index, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1]
    if len(places) != 1 or not all(one[places[0]].isdecimal() for one in parts):
        return []
    place, numbers = places[0], {int(one[places[0]]) for one in parts}
    absent = next((number for number in range(max(numbers)) if number not in numbers), None)
    return [] if absent is None else [".".join([*parts[0][:place], str(absent), *parts[0][place + 1 :]])]


def _cannot(conversion: Conversion, error: Exception) -> UnsupportedModel:
    operations = ", ".join(type(one).__name__ for one in conversion.converter.operations)
    return UnsupportedModel(
        f"weight cannot be made of what is stored: {conversion.path}: {conversion.first} of {conversion.says} "
        f"({operations}): {reason(error)}: download the checkpoint again, or save it in the model's own layout: "
        "save_pretrained(save_original_format=False)"
    )
