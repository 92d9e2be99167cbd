"""``gga-soup``: averages the weights of the models that several runs have trained."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gga_lightning.experiments.checkpoints import replace_file
from gga_lightning.experiments.configuration import explain
from gga_lightning.experiments.jobs import Job
from gga_lightning.experiments.members import Member, check_match, read_member
from gga_lightning.experiments.models import (
    DEFAULT_SELECTION,
    add_model_options,
    config_file,
    made_from,
    quiet_trainer,
    untrained_model,
)
from gga_lightning.experiments.selection import (
    RULES,
    ValidationHistory,
    ValidationPass,
    entry,
)
from gga_lightning.experiments.terminal import tidy
from gga_lightning.experiments.train import make_data
from gga_lightning.report.metric import parse_metric

__all__ = ["average", "main", "soup"]

State = dict[str, Tensor]
Evaluate = Callable[[State], ValidationPass]


def soup(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    greedy: bool = False,
    selection: str = DEFAULT_SELECTION,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> dict[str, Any]:
    """Averages the weights of the models that a selection rule chose from several runs.

    The average is evaluated on the first run's data, which must be there. Averaging works for
    models that were trained from the same weights: pretrained ones with the same classifier. Vary
    ``data.seed`` (the batches), hyperparameters or algorithms between the runs, and keep ``seed``
    (the initial weights) and ``data.split_seed``.

    Args:
        folders: Two or more finished run folders of ``gga-train``.
        out: A new folder. It becomes a run folder that ``gga-eval``, ``gga-predict`` and
            ``gga-report`` read.
        weights: A weight for each run, not all zero; equal ones if None. With two runs and
            weights 1 - a and a this is the interpolation of WiSE-FT.
        greedy: Whether to begin with the model of the best training-domain validation, and to add
            each other one, from better to worse, only if the average's validation is then no
            lower.
        selection: See :func:`~gga_lightning.experiments.evaluate.load_model`.
        device: ``"auto"``, ``"cpu"`` or ``"gpu"``, for the validations.
        trust: See :func:`~gga_lightning.experiments.evaluate.load_model`.

    Returns:
        What ``result.json`` of the new folder holds. Its ``soup`` has the members, their weights
        and their own accuracies on the validation parts.

    Raises:
        ValueError: If the runs do not match, ``out`` is not empty, or an argument is out of range.

    Source: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482 (uniform and greedy soup);
    Ramé et al., "Diverse Weight Averaging for Out-of-Distribution Generalization" (DiWA), NeurIPS
    2022, arXiv 2205.09739; Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT),
    CVPR 2022, arXiv 2109.01903. Statistics of BatchNorm layers are averaged too.
    """
    out = Path(out)
    _check_arguments(folders, out, weights, greedy)
    members = [read_member(Path(folder), selection, trust) for folder in folders]
    check_match(members)
    evaluate = _evaluation(members[0], device)
    if greedy:
        kind, (shares, found) = "greedy", _greedy(members, evaluate)
    else:
        kind, found = "uniform" if weights is None else "weighted", None
        given = [1.0] * len(members) if weights is None else weights
        shares = [weight / sum(given) for weight in given]
    state = average([member.state for member in members], shares)
    return _write(out, members, shares, state, found or evaluate(state), kind)


def average(states: Sequence[State], weights: Sequence[float]) -> State:
    """Averages the weights of models.

    Args:
        states: The ``state_dict`` of each model, with equal names and shapes.
        weights: A weight for each, which sum to 1.

    Returns:
        The averages, computed in float64 and rounded to the first model's types. Integers, such
        as counters, are the first's of those with a weight.

    Example:
        >>> one, other = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
        >>> average([one, other], [0.25, 0.75])
        {'w': tensor([3., 2.])}
    """
    used = [(state, weight) for state, weight in zip(states, weights, strict=True) if weight]
    first = used[0][0]
    averaged: State = {}
    for name, value in first.items():
        if value.is_floating_point() or value.is_complex():
            kind = torch.promote_types(value.dtype, torch.float64)
            total = torch.stack([state[name].to(kind) * weight for state, weight in used]).sum(0)
            averaged[name] = total.to(value.dtype)
        else:
            averaged[name] = value.clone()
    return averaged


def _check_arguments(
    folders: Sequence[str | Path], out: Path, weights: Sequence[float] | None, greedy: bool
) -> None:
    if len({Path(folder).resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError(
            "`folders` must be two or more different run folders, got "
            f"{', '.join(map(str, folders)) or 'none'}."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"`out` must be a new or an empty folder, got {str(out)!r}, which is not.")
    if weights is None:
        return
    if greedy:
        raise ValueError("`weights` must be None with `greedy=True`, which finds them, got both.")
    right = all(0 <= weight < float("inf") for weight in weights) and sum(weights) > 0
    if len(weights) != len(folders) or not right:
        raise ValueError(
            f"`weights` must be {len(folders)} finite numbers, one for each run, not negative and "
            f"not all zero, got {list(weights)}."
        )


def _evaluation(member: Member, device: str) -> Evaluate:
    """Makes the function that evaluates weights on the run's data, as its validation did."""
    with made_from(config_file(member.folder), "the run's data cannot be made"):
        data = make_data(member.config)
    module = untrained_model(member.folder, member.config, data)

    def evaluate(state: State) -> ValidationPass:
        module.load_state_dict(state)
        history = ValidationHistory()
        trainer = quiet_trainer(member.folder, member.config, device, history)
        trainer.validate(module, datamodule=data, verbose=False)
        return history.evaluations[-1]

    return evaluate


def _greedy(members: Sequence[Member], evaluate: Evaluate) -> tuple[list[float], ValidationPass]:
    """The members' weights, and the evaluation of the average."""
    sign = 1.0 if members[0].metric.higher_is_better else -1.0
    order = sorted(range(len(members)), key=lambda index: -sign * members[index].accuracy)
    chosen, best = order[:1], evaluate(members[order[0]].state)
    for index in order[1:]:
        tried = [*chosen, index]
        states = [members[each].state for each in tried]
        found = evaluate(average(states, [1 / len(tried)] * len(tried)))
        if sign * found.val_acc >= sign * best.val_acc:
            chosen, best = tried, found
    return [1 / len(chosen) if i in chosen else 0.0 for i in range(len(members))], best


def _write(
    out: Path,
    members: Sequence[Member],
    shares: Sequence[float],
    state: State,
    found: ValidationPass,
    kind: str,
) -> dict[str, Any]:
    """Makes a run folder: the first member's configuration, the weights, the result."""
    first = members[0]
    step = max(member.step for member in members)
    hashes = [[m.result["config_hash"], share] for m, share in zip(members, shares, strict=True)]
    digest = hashlib.sha256(json.dumps([kind, sorted(hashes)]).encode()).hexdigest()
    (out / ".hydra").mkdir(parents=True)
    (out / "checkpoints").mkdir()
    for name in ("config.yaml", "hydra.yaml"):
        source = first.folder / ".hydra" / name
        if source.is_file():
            (out / ".hydra" / name).write_bytes(source.read_bytes())
    path = out / "checkpoints" / f"{DEFAULT_SELECTION}-{step}.ckpt"
    unfinished = path.with_name(f"{path.name}.part")
    torch.save({"state_dict": state, "global_step": step}, unfinished)
    replace_file(unfinished, path)
    chosen = entry(found, first.metric)
    result = {
        **first.result,
        "config_hash": digest[:16],
        "settings": {**first.result["settings"], "soup": kind},
        "steps": step,
        "diverged": None,
        "selections": {rule: {**chosen, "step": step} for rule in RULES},
        "evaluations": [{"step": step, first.metric.values_key: dict(found.accuracies)}],
        "search": None,
        "seconds": sum(member.result["seconds"] for member in members),
        "overrides": [],
        "soup": {
            "kind": kind,
            "members": [os.path.relpath(member.folder, out) for member in members],
            "weights": list(shares),
            "validation": [member.accuracy for member in members],
        },
    }
    Job(out).finish(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-soup``.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        with tidy("gga-soup"):
            result = soup(
                options.runs,
                options.out,
                weights=options.weights,
                greedy=options.greedy,
                selection=options.selection,
                device=options.device,
                trust=options.trust,
            )
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"gga-soup: {explain(error)}", file=sys.stderr)
        return 1
    _show(options.out, result)
    return 0


def _show(out: str, result: dict[str, Any]) -> None:
    """Prints the members and the quality of the average."""
    metric = parse_metric(result)
    names = ("members", "weights", "validation")
    members, weights, accuracies = (result["soup"][name] for name in names)
    for run, weight, accuracy in zip(members, weights, accuracies, strict=True):
        print(f"weight {weight:.3f}  validation {metric.shown(accuracy)}  {run}")
    chosen = result["selections"][DEFAULT_SELECTION]
    mean = sum(accuracies) / len(accuracies)
    best = (max if metric.higher_is_better else min)(accuracies)
    val, test = (chosen[metric.key(part)] for part in ("val", "test"))
    print(
        f"The {result['soup']['kind']} soup of {sum(map(bool, weights))} models has a validation "
        f"{metric.title} of {metric.shown(val)}; its members have {metric.shown(mean)} on average "
        f"and {metric.shown(best)} at best. On the held-out domain it has {metric.shown(test)}. "
        f"It is in {out}."
    )
    if val < mean if metric.higher_is_better else val > mean:
        print(
            "It is worse than its members. Models can be averaged if their trainings began at the "
            "same weights: vary `data.seed` or hyperparameters instead of `seed`."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-soup",
        description="Averages the weights of the models that a selection rule chose from several "
        "runs, and writes a run folder that gga-eval, gga-predict and gga-report read. The runs "
        "must have begun at the same weights: the same `seed`, another `data.seed` or other "
        "hyperparameters.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a finished run folder of gga-train")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new run folder")
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="from the best to the worst, add a model only if the validation gets no lower",
    )
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one for each run (equal ones)"
    )
    add_model_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
