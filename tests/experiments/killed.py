"""gga-train that kills its own process in a search: `killed.py CHECKPOINT [override ...]`.

The process ends at the 30th candidate after the checkpoint was written, without running any
handler. A test that watches the process from outside would depend on the machine's speed.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def killed_in_a_search(checkpoint, *overrides):
    """Runs this module in a process of its own until it is killed."""
    from tests.helpers import on_digits  # here, as the module is run from outside the package

    command = [sys.executable, __file__, str(checkpoint), *on_digits(overrides)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def start_training(folder, *arguments):
    """Starts gga-train in a process of its own, in a folder, for others to send signals to."""
    from tests.helpers import on_digits

    return subprocess.Popen(
        [sys.executable, "-m", "gga_lightning.experiments.train", *on_digits(arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts a command in the background has it ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def main(checkpoint):
    from gga_lightning.alignment.place import Place
    from gga_lightning.experiments import train

    move, candidates = Place.add_noise, []

    def add_noise(*arguments):
        candidates.extend([None] * checkpoint.exists())
        if len(candidates) == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        move(*arguments)

    Place.add_noise = add_noise
    train.main()


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
