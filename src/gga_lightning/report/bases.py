"""Finds the row that each row is compared with, and orders the rows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gga_lightning.report.methods import CONTROLS, Method

__all__ = ["arrange", "find_baseline"]

_ERM = "erm/none"


def find_baseline(methods: Sequence[Method], name: str) -> Method | None:
    """Finds a row by label or ``algorithm/annealing``; None if several are equally suitable."""
    found = [m for m in methods if name in (m.label, m.combination)]
    for preferred in (
        [m for m in found if m.label == name],
        [m for m in found if m.bare],
        found,
        [m for m in found if m.kind != "control"],
    ):
        if len(preferred) == 1:
            return preferred[0]
    return None


def arrange(methods: Sequence[Method], baseline: str | None = None) -> list[Method]:
    """Determines the kind and the base of each method, and orders the methods.

    The base is the method to compare with. By default it is the algorithm without the annealing or,
    for methods without annealing, ERM. If several methods qualify, it is the one whose other
    settings are the same.

    Args:
        methods: The methods of one data set.
        baseline: The base of all methods instead, see :func:`find_baseline`.

    Returns:
        The methods with ``kind`` and ``base``. Each follows its base, a control its method.
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
        elif kind == "method" and method.combination == _ERM:
            kind = "plain"
        label = None if base is None or base is method else base.label
        arranged.append(replace(method, kind=kind, base=label))
    return _side_by_side(arranged)


def _own_base(method: Method, methods: Sequence[Method]) -> Method | None:
    """Finds the algorithm without the annealing, or ERM; with the same settings if possible."""
    annealed = method.annealing != "none"
    name = f"{method.algorithm}/none" if annealed else _ERM
    free = ("annealing." if annealed else "algorithm.", *CONTROLS)
    same = [
        other
        for other in methods
        if other.combination == name
        and other.kind != "control"
        and _differ_only(method, other, free)
    ]
    own = same[0] if len(same) == 1 and same[0] is not method else find_baseline(methods, name)
    return None if own is method else own


def _differ_only(one: Method, other: Method, names: tuple[str, ...]) -> bool:
    """Whether all settings that differ have names that begin with one of these."""
    return all(name.startswith(names) for name, _ in one.settings ^ other.settings)


def _side_by_side(methods: Sequence[Method]) -> list[Method]:
    """Puts each method after its base, those of its algorithm first, and controls after methods."""
    children: dict[str | None, list[Method]] = defaultdict(list)
    for method in methods:
        owner = _controlled(method, methods) if method.kind == "control" else None
        children[owner.label if owner else method.base].append(method)

    def below(label: str | None, algorithm: str) -> Iterable[Method]:
        ordered = sorted(
            children[label],
            key=lambda m: (
                m.kind != "baseline",
                m.kind != "control",
                m.algorithm != algorithm,
                m.label,
            ),
        )
        for method in ordered:
            yield method
            yield from below(method.label, method.algorithm)

    return list(below(None, "erm"))


def _controlled(control: Method, methods: Iterable[Method]) -> Method | None:
    """Finds a control's method: the one of the same settings, or else of the most similar name."""
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
