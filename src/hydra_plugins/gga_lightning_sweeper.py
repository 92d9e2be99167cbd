"""Hydra's sweeper, made to know domains. Hydra finds sweepers in the package hydra_plugins alone.

Every Hydra app imports what lies there, so that this module imports next to nothing.
"""

import itertools
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException

__all__ = ["DomainSweeper", "names_as_text", "quoted"]

_TEST_DOMAIN = "data.test_domain"
_NUMBERS = ("seed", "hparams_seed", _TEST_DOMAIN)
_NOT_DATA = ("seed", "hparams_seed", "algorithm", "annealing", "backbone", "trainer", "callbacks")

_OPENING, _CLOSING = "[{(", "]})"
_FUNCTIONS = (
    "bool", "choice", "extend_list", "float", "glob", "int", "interval", "json_str", "range",
    "shuffle", "sort", "str", "tag",
)  # fmt: skip
_CALL = re.compile(rf"({'|'.join(_FUNCTIONS)})\s*\(")
# What Hydra reads as the text that was typed, and integers that are written as Python writes them.
_WORD = r"(?!(?:true|false|null|nan|inf)$)[a-z_][\w-]*"
_INTEGER = r"0|-?[1-9][0-9]*"
# Settings that name domains: the words that have a meaning of their own, and what needs no quotes.
_TEXTS = {
    _TEST_DOMAIN: (("all", "pairs"), re.compile(f"{_WORD}|{_INTEGER}", re.A | re.I)),
    "data.dataset.domains": (("null",), re.compile(_WORD, re.A | re.I)),
}


class DomainSweeper(BasicSweeper):
    """Hydra's sweeper, which also knows domains and lists of alternatives.

    Beyond Hydra's own ``key=a,b`` and ``params``:

    - ``data.test_domain=all`` holds out every domain of each job's data in turn, ``pairs`` every
      two of them (for leave-one-domain-out validation);
    - ``hydra.sweeper.alternatives`` maps names to lists of alternatives, each a line of overrides
      that belong together; a job takes one of each list. What is typed wins over them;
    - ``hydra.sweeper.minutes`` ends a sweep early: no batch of jobs begins after them.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        alternatives: Mapping[str, Sequence[str]] | None = None,
        minutes: float | None = None,
    ) -> None:
        """Called by Hydra with the settings of ``hydra.sweeper``.

        Args:
            max_batch_size: Jobs handed to the launcher at a time; all if None.
            params: Setting to its values, as typed on the command line.
            alternatives: A list's name to its alternatives.
            minutes: How long batches of jobs may begin; without limit if None. A batch has one
                job then, unless ``max_batch_size`` is given.
        """
        if minutes is not None and max_batch_size is None:
            max_batch_size = 1
        super().__init__(max_batch_size, params)
        self.minutes = minutes
        self.alternatives = alternatives or {}

    def sweep(self, arguments: list[str]) -> Any:
        """Runs all jobs, in however many batches; the first failed one is an error then.

        Args:
            arguments: What was typed.

        Returns:
            What the jobs returned, in their order.

        Raises:
            HydraException: If jobs failed.
        """
        assert self.launcher is not None
        launch, results = self.launcher.launch, []
        self._end = float("inf") if self.minutes is None else time.monotonic() + 60 * self.minutes

        def launch_and_go_on(*batch: Any, **options: Any) -> list[JobReturn]:
            results.extend(launch(*batch, **options))
            return []  # nothing to stop at

        self.launcher.launch = launch_and_go_on
        super().sweep(names_as_text(arguments))
        if not super().is_done():
            assert self.overrides is not None
            left = sum(map(len, self.overrides[self.batch_index :]))
            print(f"{left} jobs were not begun within {self.minutes:g} minutes.", flush=True)
        returned, failures = [], []
        for result in results:
            try:
                returned.append(result.return_value)
            except Exception as error:
                failures.append(error)
        if failures:
            raise HydraException(
                f"{len(failures)} of {len(results)} jobs failed; the folder of each has its error "
                "in failure.json and train.log. Fix what they say and give the same command again."
            ) from failures[0]
        return returned

    def is_done(self) -> bool:
        """Tells Hydra whether to stop: all batches have ended, or the time is over.

        Returns:
            Whether it is.
        """
        return super().is_done() or time.monotonic() >= self._end

    def _parse_config(self) -> list[str]:
        return names_as_text(super()._parse_config())

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
        """Composes and checks jobs before the first one starts.

        Of those that differ in numbers only, it composes one.

        Args:
            batch: Jobs, each a list of overrides.
        """
        from gga_lightning.experiments.configuration import check_numbers, check_seeds

        assert self.hydra_context is not None
        assert self.config is not None
        kinds = {tuple(o for o in job if _key(o) not in _NUMBERS): job for job in batch}
        for job in kinds.values():
            loader = self.hydra_context.config_loader
            check_numbers(loader.load_sweep_config(self.config, list(job)))
        parser = OverridesParser.create()
        for override in dict.fromkeys(itertools.chain.from_iterable(batch)):
            if _key(override).endswith("seed"):
                check_seeds({_key(override): parser.parse_override(override).value()})

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
    lines = itertools.chain.from_iterable(map(shlex.split, chosen))
    overrides = [*names_as_text(lines), *job]
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


def names_as_text(overrides: Iterable[str]) -> list[str]:
    """Quotes the names of domains, which Hydra would read as other values than what was typed.

    To Hydra ``007`` is 7, ``1_1`` is 11, ``1e3`` is 1000.0 and ``true`` is a boolean, and names
    with letters beyond ASCII or with parentheses are errors. Quoted values, interpolations, calls
    of Hydra's functions, ``all`` and ``pairs`` stay what they are.

    Args:
        overrides: Words of a command line.

    Returns:
        The same words, with what ``data.test_domain`` and ``data.dataset.domains`` are set to in
        quotes, where this makes a difference.

    Example:
        >>> names_as_text(["seed=007", "data.test_domain=007,left,[1_1,'0']"])
        ['seed=007', "data.test_domain='007',left,['1_1','0']"]
    """
    found: list[str] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+")
        if equals and name in _TEXTS:
            kept, plain = _TEXTS[name]
            found.append(f"{key}={_quoted_elements(value, kept, plain)}")
        else:
            found.append(override)
    return found


def _quoted_elements(value: str, kept: Sequence[str], plain: re.Pattern[str]) -> str:
    """A value with its names quoted: one, alternatives, or lists of them."""
    return ",".join(_quoted_element(part.strip(), kept, plain) for part in _split(value))


def _quoted_element(element: str, kept: Sequence[str], plain: re.Pattern[str]) -> str:
    call = _CALL.match(element)
    if call and call[1] == "choice" and element.endswith(")"):
        return f"choice({_quoted_elements(element[call.end() : -1], kept, plain)})"
    if element.startswith("[") and element.endswith("]"):
        return f"[{_quoted_elements(element[1:-1], (), plain)}]"
    raw = call or element in kept or "${" in element or element[:1] in ("", "'", '"', "{")
    if raw or plain.fullmatch(element):
        return element
    return quoted(re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", element))  # as Hydra unescapes


def _split(value: str) -> Iterator[str]:
    """Splits at commas outside of quotes and brackets. An apostrophe within a name is a letter."""
    depth, quote, start, escaped, before = 0, "", 0, False, ","
    for index, letter in enumerate(value):
        if escaped or letter == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and before in _OPENING + ",:=":
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth = max(0, depth - 1)
        elif letter == "," and depth == 0:
            yield value[start:index]
            start = index + 1
        before = before if letter.isspace() else letter
    yield value[start:]
