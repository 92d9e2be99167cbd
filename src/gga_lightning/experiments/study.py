"""``gga-study``: tries methods, their controls and plain remedies on the user's data."""

import argparse
import os
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from gga_lightning.experiments import train
from gga_lightning.experiments.configuration import check_numbers, config_directory, explain
from gga_lightning.experiments.terminal import tidy
from gga_lightning.experiments.verdict import verdicts
from gga_lightning.report.cli import main as report
from hydra_plugins.gga_lightning_sweeper import names_as_text, quoted

__all__ = ["arms", "main"]

_METHODS = ("gga_early", "voting")
_VARIED = ("annealing", "seed")
_CONTROLS = {
    "annealing": "annealing.control=shuffle_domains",
    "algorithm": "data.shuffle_domains=true",
}
# runs of a study are many and short: only their results are kept
_QUIET = ("callbacks=none", "logger=none", "++trainer.enable_progress_bar=false")


def arms(overrides: Sequence[str], methods: Sequence[str] = _METHODS) -> list[list[str]]:
    """Lists the arms of a study: plain training, methods, their controls, and plain remedies.

    Args:
        overrides: Overrides of ``gga-train`` that all arms share, such as ``data=toy``.
        methods: Each an option of the group ``annealing`` or ``algorithm``, perhaps followed by
            further overrides after spaces: ``"voting annealing.end_step=50"``.

    Returns:
        The overrides of each arm: first those that keep a run quiet and small, then the shared
        ones, then the arm's own. The first arm is plain training. The control of a method
        assigns samples to the domains at random. The plain remedies are three times the learning
        rate, ten times the weight decay (0.001 if it is 0), twice the steps, and, for images,
        edge pictures as augmentation.

    Raises:
        ValueError: If an override has several values or is of what the study varies, if there is
            no such method, or if the length of a training is not given in steps.

    Example:
        >>> for arm in arms(["data=toy"], ["voting"]):
        ...     print(*arm[4:])
        annealing=none
        annealing=voting annealing.end_step=200
        annealing=voting annealing.end_step=200 annealing.control=shuffle_domains
        annealing=none algorithm.optimizer.lr=0.003
        annealing=none algorithm.optimizer.weight_decay=0.001
        annealing=none trainer.max_steps=1600
    """
    shared = [*_QUIET, *names_as_text(overrides)]
    _check_shared(names_as_text(overrides))
    with initialize_config_dir(config_directory(), version_base="1.3"):
        config = compose("train", [*shared, "annealing=none"])
        if config.trainer.max_steps < 1:
            raise ValueError(
                "`trainer.max_steps` must be at least 1, since one arm trains twice as many, got "
                f"{config.trainer.max_steps}."
            )
        varied = [["annealing=none"]]
        for method in methods:
            varied += _with_control(method, config)
        varied += [["annealing=none", *remedy] for remedy in _remedies(config)]
        found = [[*shared, *arm] for arm in varied]
        for arm in found:
            check_numbers(compose("train", arm))
    return found


def _check_shared(overrides: Sequence[str]) -> None:
    for word, override in zip(
        overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True
    ):
        if override.is_sweep_override():
            raise ValueError(
                f"overrides must have one value each, got {word!r}; `--methods` are compared."
            )
        if override.key_or_group in _VARIED or override.key_or_group.startswith("hydra"):
            raise ValueError(
                f"overrides must not set what the study varies itself, got {word!r}; "
                "see `--methods`, `--seeds`, `--out` and `--jobs`."
            )


def _with_control(method: str, config: DictConfig) -> list[list[str]]:
    """Makes the arms of a method and of its control, which shuffles the domains."""
    name, *more = shlex.split(method)
    group = next((group for group in _CONTROLS if _is_option(group, name)), None)
    if group is None:
        raise ValueError(
            f"`--methods` must be options of `annealing` or `algorithm`, got {name!r}; "
            "`gga-train annealing=list` and `gga-train algorithm=list` print them."
        )
    arm = [f"annealing={name}"] if group == "annealing" else ["annealing=none", f"{group}={name}"]
    if name == "voting" and not any(word.startswith("annealing.end_step=") for word in more):
        arm.append(f"annealing.end_step={max(1, config.trainer.max_steps // 4)}")
    return [[*arm, *more], [*arm, *more, _CONTROLS[group]]]


def _is_option(group: str, name: str) -> bool:
    return (Path(config_directory()) / group / f"{name}.yaml").exists()


def _remedies(config: DictConfig) -> list[list[str]]:
    """Lists the plain remedies, which need no method."""
    optimizer, length = config.algorithm.optimizer, config.trainer.max_steps
    found = [
        [f"algorithm.optimizer.lr={3 * optimizer.lr:g}"],
        [f"algorithm.optimizer.weight_decay={10 * optimizer.weight_decay or 0.001:g}"],
        [f"trainer.max_steps={2 * length}"],
    ]
    if "views" in config.data:
        found.append(["data.views=[edges]", "data.views_as=augmentation"])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-study``.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        with tidy("gga-study"):
            _check(options)
            found = arms(options.overrides, options.methods)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"gga-study: {explain(error)}", file=sys.stderr)
        return 1
    count = f"{len(found)} arms, up to {options.seeds} seeds, at most {options.minutes:g} minutes"
    print(f"gga-study: {count}; run folders in {options.out}", flush=True)
    failed = _train(_sweep(found, options))
    if not any(options.out.glob("*/result.json")):
        print("gga-study: no job has ended; give more `--minutes`.", file=sys.stderr)
        return 1
    baseline = f"{_algorithm(options.overrides)}/none"
    failed |= report([str(options.out), "--baseline", baseline])
    print("\n".join(["", *verdicts(options.out, baseline)]))
    return failed


def _algorithm(overrides: Sequence[str]) -> str:
    """The algorithm that all arms build on."""
    names = [word.partition("=")[2] for word in overrides if word.startswith("algorithm=")]
    return names[-1] if names else "erm"


def _check(options: argparse.Namespace) -> None:
    for name in ("seeds", "jobs", "minutes"):
        value = getattr(options, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"`--{name}` must be a positive number, got {value}.")


def _sweep(found: Sequence[Sequence[str]], options: argparse.Namespace) -> list[str]:
    """The command line of the study as a sweep: one seed after the other, all arms on each."""
    lines = ",".join(quoted(shlex.join(arm)) for arm in found)
    held_out = any(word.startswith("data.test_domain=") for word in options.overrides)
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.jobs}"]
    return [
        "-m",
        f"seed=range({options.seeds})",
        *(() if held_out else ["data.test_domain=all"]),
        f"+hydra.sweeper.alternatives.arm=[{lines}]",
        f"hydra.sweeper.minutes={options.minutes}",
        f"hydra.sweeper.max_batch_size={options.jobs}",
        f"hydra.sweep.dir={quoted(str(options.out))}",
        *(launcher if options.jobs > 1 else ()),
    ]


def _train(arguments: Sequence[str]) -> int:
    """Runs ``gga-train`` in this process; whether jobs failed."""
    with _command_line("gga-train", *arguments):
        try:
            train.main()
        except SystemExit as end:
            if end.code != 1:  # a signal
                raise
            return 1
    return 0


@contextmanager
def _command_line(*words: str) -> Generator[None]:
    """Replaces the process's arguments, which Hydra reads, in the body."""
    before = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-study",
        description="Does it help on my data? Trains plain ERM, methods, their controls and plain "
        "remedies, with every domain held out in turn, on the same seeds, and ends with tables "
        "and a verdict on each method. The same command continues a study.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="of gga-train, for all arms: data=folders data.root=DIR trainer.max_steps=1000",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(_METHODS),
        metavar="METHOD",
        help="options of annealing or algorithm, in quotes if overrides follow: "
        f"'voting annealing.end_step=50' ({' '.join(_METHODS)})",
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="begin no job after them (%(default)g)"
    )
    parser.add_argument("--seeds", type=int, default=10, help="at most (%(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="at a time (%(default)s); more need the extra joblib"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("study"), metavar="FOLDER", help="(%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
