"""Time the training steps of ResNet50, on JAX, in one of several processes.

`scaling.py` starts it: train_steps.py PROCESSES PROCESS PORT STEPS. The first process
prints the seconds of a step, and the megabytes of the gradients that are exchanged.
"""

import sys
import time
from functools import partial
from typing import Any

from braintumor import config, generators, models, training
from braintumor.support import cluster

import numpy as np

EPOCHS = 4  # the first compiles, and does not count
BATCH = 32  # of all processes together
SIZE = 64  # px


def time_steps(sequence_class: Any, steps: int) -> tuple[float, float]:
    """Train for a few epochs.

    Args:
        sequence_class: ``generators.ScanSequence``, or what shares its batches.
        steps: Of an epoch.

    Returns:
        Seconds of a step, the median of the epochs; megabytes of the gradients.
    """
    settings = config.settings_from(
        "sample",
        weights="random",
        recipe="scratch",
        head_epochs=0,
        image_size=SIZE,
        precision="float32",
        seed=0,
    )
    network = models.build_classifier(settings, "resnet50", classes=4)
    (phase,) = training.training_phases(settings, "resnet50")
    recipe = settings.parsed_recipe
    training.compile_phase(network, phase, recipe, steps_per_epoch=EPOCHS * steps)

    count = BATCH * steps
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE), "uint8")
    scans = sequence_class(
        images,
        np.arange(count) % 4,
        classes=4,
        batch_size=BATCH,
        augmentation=generators.AUGMENTATIONS["original"],
        seed=0,
    )
    seconds = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        network.fit(scans, verbose=0, shuffle=False)
        seconds.append(time.perf_counter() - started)
    epoch_seconds = float(np.median(seconds[1:]))
    gradient_bytes = 4 * network.count_params()
    return epoch_seconds / steps, 1e-6 * gradient_bytes


def main() -> None:
    """Train alone, or with the other processes."""
    processes, process, port, steps = map(int, sys.argv[1:])
    if processes == 1:
        print(*time_steps(generators.ScanSequence, steps))
        return
    with cluster.join(f"127.0.0.1:{port}", processes, process) as share:
        shared = partial(cluster.SharedScanSequence, share=share)
        measured = time_steps(shared, steps)
        if share.is_first:
            print(*measured)


if __name__ == "__main__":
    main()
