"""Hydra's sweeper, made to know domains. Hydra finds sweepers in the package hydra_plugins alone.

Every Hydra app imports what lies there, so that this module imports next to nothing.
"""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn

__all__ = ["DomainSweeper", "quoted"]

_TEST_DOMAIN = "data.test_domain"
_NUMBERS = ("seed", "hparams_seed", _TEST_DOMAIN)
_NOT_DATA = ("seed", "hparams_seed", "algorithm", "annealing", "backbone", "trainer", "callbacks")


class DomainSweeper(BasicSweeper):
    """Hydra's sweeper, which also knows domains and lists of alternatives.

    Beyond Hydra's own ``key=a,b`` and ``params``:

    - ``data.test_domain=all`` holds out every domain of each job's data in turn, ``pairs`` every
      two of them (for leave-one-domain-out validation);
    - ``hydra.sweeper.alternatives`` maps names to lists of alternatives, each a line of overrides
      that belong together; a job takes one of each list. What is typed wins over them.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        alternatives: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Called by Hydra with the settings of ``hydra.sweeper``.

        Args:
            max_batch_size: Jobs handed to the launcher at a time; all if None.
            params: Setting to its values, as typed on the command line.
            alternatives: A list's name to its alternatives.
        """
        super().__init__(max_batch_size, params)
        self.alternatives = alternatives or {}

    def sweep(self, arguments: list[str]) -> Any:
        """Runs all jobs, in however many batches; the first failed one is an error then.

        Args:
            arguments: What was typed.

        Returns:
            What the jobs returned, in their order.
        """
        assert self.launcher is not None
        launch, results = self.launcher.launch, []

        def launch_and_go_on(*batch: Any, **options: Any) -> list[JobReturn]:
            results.extend(launch(*batch, **options))
            return []  # nothing to stop at

        self.launcher.launch = launch_and_go_on
        super().sweep(arguments)
        return [result.return_value for result in results]

    def split_arguments(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Makes the jobs of a sweep.

        Args:
            overrides: What was typed, after ``params``.
            max_batch_size: Jobs handed to the launcher at a time; all if None.

        Returns:
            Batches of jobs, each a list of overrides.
        """
        (typed,) = BasicSweeper.split_arguments(overrides, None)
        names: dict[tuple[str, ...], list[str]] = {}  # of the domains, by what chooses the data
        jobs = [
            expanded
            for job in typed
            for chosen in itertools.product(*self.alternatives.values())
            for expanded in self._hold_out(_merged(chosen, job), names)
        ]
        distinct = {frozenset(job): job for job in jobs}  # typed values make some alike
        return list(self.split_overrides_to_chunks(list(distinct.values()), max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Composes jobs before the first one starts: of those that differ in numbers only, one.

        Args:
            batch: Jobs, each a list of overrides.
        """
        kinds = {tuple(o for o in job if _key(o) not in _NUMBERS): job for job in batch}
        super().validate_batch_is_legal(list(kinds.values()))

    def _hold_out(
        self, job: list[str], names: dict[tuple[str, ...], list[str]]
    ) -> Iterator[list[str]]:
        """The jobs for which ``all`` or ``pairs`` of the domains stand."""
        size = {f"{_TEST_DOMAIN}=all": 1, f"{_TEST_DOMAIN}=pairs": 2}
        (place, count) = next(((i, size[o]) for i, o in enumerate(job) if o in size), (None, 0))
        if place is None:
            yield job
            return
        rest = [*job[:place], *job[place + 1 :]]
        chooses_data = tuple(o for o in rest if _key(o).partition(".")[0] not in _NOT_DATA)
        if chooses_data not in names:
            assert self.hydra_context is not None
            assert self.config is not None
            from gga_lightning.experiments.sweeps import (
                domain_names,
            )  # only a sweep of ours pays for it

            loader = self.hydra_context.config_loader
            names[chooses_data] = domain_names(loader.load_sweep_config(self.config, rest))
        for held_out in itertools.combinations(map(quoted, names[chooses_data]), count):
            value = held_out[0] if count == 1 else f"[{','.join(held_out)}]"
            yield [*job[:place], f"{_TEST_DOMAIN}={value}", *job[place + 1 :]]


def _merged(chosen: Sequence[str], job: Sequence[str]) -> list[str]:
    """A job's overrides, of each setting the last."""
    overrides = [*itertools.chain.from_iterable(map(shlex.split, chosen)), *job]
    return list({_key(override): override for override in overrides}.values())


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def quoted(text: str) -> str:
    """A string in Hydra's grammar, whatever is in it.

    Args:
        text: The string.

    Returns:
        The same in single quotes: backslashes count only before a quote.
    """
    escaped = re.sub(r"(\\*)(?='|$)", lambda found: found[1] * 2, text).replace("'", "\\'")
    return f"'{escaped}'"
