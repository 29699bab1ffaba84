"""Why the original's ResNet50 collapsed: batch-norm statistics followed through a training, and estimated anew."""

from braintumor.models import batch_norms

import keras
import numpy as np
import pandas as pd


def renew_statistics(model: keras.Model, batches, layers) -> None:
    """Set the statistics of these batch norms to their means over ``batches``; nothing else of the model moves."""
    momenta = {norm: norm.momentum for norm in batch_norms(model)}
    for done, batch in enumerate(batches):
        for norm in momenta:
            norm.momentum = done / (done + 1) if norm in layers else 1.0
        model(batch, training=True)
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def judge(model: keras.Model, inputs, labels, batches) -> dict:
    """Accuracy as is, with the first and with all statistics renewed; share of one answer; stored/present variance."""
    weights, (first, *others) = model.get_weights(), batch_norms(model)
    present = keras.ops.var(
        keras.Model(model.input, first.input)(batches[0]), axis=(0, 1, 2)
    )
    row = {
        "variance_ratio": np.median(
            keras.ops.convert_to_numpy(first.moving_variance / present)
        )
    }
    for name, layers in {
        "validation": [],
        "first_renewed": [first],
        "all_renewed": others,
    }.items():
        renew_statistics(model, batches if layers else [], layers)
        answers = model.predict(inputs, batch_size=64, verbose=0).argmax(axis=1)
        row[name] = (answers == labels).mean()
        row.setdefault("one_answer", np.bincount(answers).max() / len(answers))
    model.set_weights(weights)
    return row


def follow(
    model: keras.Model,
    train,
    validation,
    batches,
    *,
    steps: int,
    every: int,
    batch_size: int,
    seed: int,
):
    """Train on random batches of ``train`` (inputs, one-hot); a table with a row every so many steps, see ``judge``."""
    generator, right, rows = np.random.default_rng(seed), [np.nan], []
    for step in range(steps + 1):
        if step % every == 0:
            rows.append(
                {"step": step, "training": np.mean(right[-every:])}
                | judge(model, *validation, batches)
            )
        chosen = generator.integers(len(train[0]), size=batch_size)
        right.append(model.train_on_batch(train[0][chosen], train[1][chosen])[1])
        model.reset_metrics()
    return pd.DataFrame(rows)
