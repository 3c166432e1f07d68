"""Nodes that are declared by the signature of one method.

nipype asks for two classes of traits per node, one of inputs and one of outputs. They are made
here from the type hints of the node's method ``compute``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)


class Record(TypedDict):
    """What a node tells the sidecar of its stage.

    Attributes
    ----------
    quality
        Figures of merit.
    warnings
        What a person should know, in sentences.
    """

    quality: dict[str, Any]
    warnings: list[str]


class FileInterface(SimpleInterface):
    """A node whose inputs and outputs are those of its method ``compute``.

    The parameters of ``compute`` are the inputs; those without a default are mandatory. The
    parameter ``cwd`` is no input: it is the folder of the node, where files are written. The
    keys of the returned ``TypedDict`` are the outputs; a key that is ``NotRequired`` may be
    missing.

    Examples
    --------
    >>> from typing import TypedDict
    >>> class Written(TypedDict):
    ...     out_file: str
    >>> class Repeat(FileInterface):
    ...     def compute(self, word: str, times: int = 2, *, cwd: Path) -> Written:
    ...         (cwd / "out.txt").write_text(word * times)
    ...         return {"out_file": str(cwd / "out.txt")}
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(Repeat(word="ab").run(cwd=folder).outputs.out_file).read_text()
    'abab'
    """

    compute: Callable[..., Mapping[str, Any]]
    _parameters: tuple[str, ...] = ()
    _takes_cwd = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "compute" not in vars(cls):
            return
        hints = get_type_hints(cls.compute)
        parameters = dict(inspect.signature(cls.compute).parameters)
        parameters.pop("self")
        cls._takes_cwd = parameters.pop("cwd", None) is not None
        cls._parameters = tuple(parameters)
        inputs = {
            name: _trait(hints[name], mandatory=parameter.default is parameter.empty)
            for name, parameter in parameters.items()
        }
        cls.input_spec = _spec(cls, "input_spec", BaseInterfaceInputSpec, inputs)
        if is_typeddict(hints["return"]):
            outputs = {name: _trait(hint) for name, hint in get_type_hints(hints["return"]).items()}
            cls.output_spec = _spec(cls, "output_spec", TraitedSpec, outputs)

    def _run_interface(self, runtime: Any) -> Any:
        self._results.update(self._compute(Path(runtime.cwd)))
        return runtime

    def _compute(self, cwd: Path) -> Mapping[str, Any]:
        """Call ``compute`` with the inputs that are defined."""
        values = {name: getattr(self.inputs, name) for name in self._parameters}
        given = {name: value for name, value in values.items() if isdefined(value)}
        return self.compute(**given, **({"cwd": cwd} if self._takes_cwd else {}))


def _spec(owner: type, name: str, base: type, fields: dict[str, Any]) -> Any:
    # Pickles name a class by its module and qualified name: this one is an attribute of its owner.
    place = {"__module__": owner.__module__, "__qualname__": f"{owner.__qualname__}.{name}"}
    return type(base)(name, (base,), {**fields, **place})


_TRAITS = {str: traits.Str, int: traits.Int, float: traits.Float, bool: traits.Bool}


def _trait(hint: Any, **metadata: Any) -> Any:
    """Make the trait of a type hint.

    >>> type(_trait(list[str])).__name__, type(_trait(str | None)).__name__
    ('List', 'Either')
    """
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType) and len(kinds) == 2 and NoneType in kinds:
        (kind,) = set(kinds) - {NoneType}
        return traits.Either(None, _trait(kind), **metadata)
    origin = get_origin(hint) or hint
    if origin is list:
        return traits.List(_TRAITS.get(kinds[0], traits.Any)(), **metadata)
    if origin is dict:
        return traits.Dict(**metadata)
    return _TRAITS.get(origin, traits.Any)(**metadata)
