"""Which row a row is compared with, and in which order the rows stand."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from gga_lightning.report.methods import CONTROLS, Method

__all__ = ["arrange", "find_baseline"]

_ERM = "erm/none"


def find_baseline(methods: Sequence[Method], name: str) -> Method | None:
    """Finds a row by label or ``algorithm/annealing``: the bare one, else the one non-control."""
    found = [m for m in methods if name in (m.label, f"{m.algorithm}/{m.annealing}")]
    for part in (
        [m for m in found if m.label == name],
        [m for m in found if m.bare],
        found,
        [m for m in found if m.kind != "control"],
    ):
        if len(part) == 1:
            return part[0]
    return None


def arrange(methods: Sequence[Method], baseline: str | None = None) -> list[Method]:
    """Gives each method its kind and the row that it is compared with, and orders the methods.

    By default an algorithm with an annealing is compared with the algorithm alone, and other
    algorithms and settings are compared with ERM. If several rows are of the algorithm alone, the
    one that has the method's other settings is meant.

    Args:
        methods: Those of one data set.
        baseline: What to compare all methods with instead, see :func:`find_baseline`.

    Returns:
        The same methods, complete. Each comes after its base, and a control after its method.
    """
    chosen = find_baseline(methods, baseline or _ERM)
    bases = {m.label: chosen if baseline else _own_base(m, methods) for m in methods}
    used = {base.label for base in bases.values() if base is not None}
    arranged: list[Method] = []
    for method in methods:
        base = bases[method.label]
        kind = method.kind
        if method is chosen or (chosen is None and base is None and method.label in used):
            kind = "baseline"
        elif kind == "method" and f"{method.algorithm}/{method.annealing}" == _ERM:
            kind = "plain"
        label = None if base is None or base is method else base.label
        arranged.append(replace(method, kind=kind, base=label))
    return _side_by_side(arranged)


def _own_base(method: Method, methods: Sequence[Method]) -> Method | None:
    """The algorithm without the annealing, or ERM; with the same settings, if there is one."""
    annealed = method.annealing != "none"
    name = f"{method.algorithm}/none" if annealed else _ERM
    free = ("annealing." if annealed else "algorithm.", *CONTROLS)
    same = [
        other
        for other in methods
        if f"{other.algorithm}/{other.annealing}" == name
        and other.kind != "control"
        and _differ_only(method, other, free)
    ]
    own = same[0] if len(same) == 1 and same[0] is not method else find_baseline(methods, name)
    return None if own is method else own


def _differ_only(one: Method, other: Method, names: tuple[str, ...]) -> bool:
    """Whether only settings differ whose names begin with one of these."""
    return all(name.startswith(names) for name, _ in one.settings ^ other.settings)


def _side_by_side(methods: Sequence[Method]) -> list[Method]:
    """Each method after its base, before those of other algorithms; controls after their method."""
    children: dict[str | None, list[Method]] = defaultdict(list)
    for method in methods:
        owner = _controlled(method, methods) if method.kind == "control" else None
        children[owner.label if owner is not None else method.base].append(method)

    def below(parent: Method | None) -> Iterable[Method]:
        first = parent.algorithm if parent is not None else "erm"
        label = None if parent is None else parent.label

        def order(method: Method) -> tuple[Any, ...]:
            return (
                method.kind != "baseline",
                method.kind != "control",
                method.algorithm != first,
                method.label,
            )

        for child in sorted(children[label], key=order):
            yield child
            yield from below(child)

    return list(below(None))


def _controlled(control: Method, methods: Iterable[Method]) -> Method | None:
    """The method whose control it is: of the same settings, or else of the most similar name."""
    family = [
        method
        for method in methods
        if method.kind != "control"
        and method.algorithm == control.algorithm
        and f"{control.annealing}_".startswith(f"{method.annealing}_")
    ]
    return max(
        family,
        key=lambda m: (_differ_only(m, control, CONTROLS), len(m.annealing), m.bare),
        default=None,
    )
