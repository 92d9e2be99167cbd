"""What happens to samples that cannot be used."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

__all__ = ["Faulty", "check_faulty", "report_problems"]

Faulty = Literal["stop", "leave_out"]
_SHOWN = 12  # problems named in one message


def check_faulty(faulty: object) -> None:
    """Raises a ValueError for what is not a :data:`Faulty`."""
    if faulty not in ("stop", "leave_out"):
        raise ValueError(f"`faulty` must be 'stop' or 'leave_out', got {faulty!r}.")


def report_problems(
    source: str | Path, problems: Sequence[str], faulty: Faulty, *, stacklevel: int = 4
) -> None:
    """Reports samples that cannot be used.

    Args:
        source: The file or folder that they are in.
        problems: What is wrong, a line each.
        faulty: Whether they end the program or are left out.
        stacklevel: That of the warning; 4 for the caller of the caller of this function's caller.

    Raises:
        ValueError: If there are problems, and they are not left out.
    """
    if not problems:
        return
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    text = "; ".join(problem.rstrip(".") for problem in problems[:_SHOWN]) + more
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    if faulty == "stop":
        raise ValueError(
            f"{count} in {str(source)!r} (fix what is wrong, or leave it out with "
            f"`faulty='leave_out'`): {text}."
        )
    warnings.warn(f"Left out because of {count} in {str(source)!r}: {text}.", stacklevel=stacklevel)
