"""The variables that functions have captured."""

import types
from collections.abc import Iterator
from typing import Any

__all__ = ["captured", "unfilled"]


def captured(function: types.FunctionType) -> Iterator[tuple[str, types.CellType]]:
    """Finds the variables that a function has captured.

    Args:
        function: The function.

    Yields:
        Each variable's name and its cell. Variables that have no value yet are left out.
    """
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            _ = cell.cell_contents
        except ValueError:
            continue
        yield name, cell


def unfilled(
    function: types.FunctionType, known: dict[int, Any]
) -> tuple[types.FunctionType, list[tuple[str, Any, types.CellType]]]:
    """Makes a function with the same code and its own variables.

    Args:
        function: The function.
        known: The new cells of variables, by the ids of the old ones. New cells are added.
            Several functions may have captured the same variable.

    Returns:
        The new function, without defaults and attributes; and for each new cell the variable's
        name, its content in the old function, and the cell, which is still to be filled.
    """
    made = {id(cell) for cell in function.__closure__ or () if id(cell) not in known}
    known.update((address, types.CellType()) for address in made)
    own = tuple(known[id(cell)] for cell in function.__closure__ or ())
    new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, own)
    new.__qualname__, new.__module__ = function.__qualname__, function.__module__
    cells = dict(zip(function.__code__.co_freevars, own, strict=True))
    variables = [(name, old) for name, old in captured(function) if id(old) in made]
    return new, [(name, old.cell_contents, cells[name]) for name, old in variables]
