"""A head that is trained on stored features learns what it would learn from scans."""

from braintumor import config, generators, models, training

import pandas as pd


def run(settings, model, sequences, folder):
    """Train a fresh network, as a restarted notebook does: (network, history)."""
    network = models.build_classifier(settings, model, classes=4)
    return network, training.train(network, *sequences(settings.seed), settings, folder)


def test_a_head_learns_from_features_what_it_learns_from_scans(
    tiny, quick, two_sequences, monkeypatch, tmp_path
):
    settings = quick(epochs=3, head_epochs=3)
    fast = run(settings, tiny, two_sequences, tmp_path / "features")[1]
    monkeypatch.setattr(
        training,
        "fit_head",
        lambda model, scans, held_out, epochs, keeper: model.fit(
            scans,
            validation_data=held_out,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[keeper],
        ),
    )
    slow = run(settings, tiny, two_sequences, tmp_path / "scans")[1]
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(fast[columns], slow[columns], rtol=1e-4)


def test_the_frozen_backbone_sees_each_view_once(
    tiny, quick, two_sequences, monkeypatch, tmp_path
):
    settings = quick(epochs=7, head_epochs=7)
    read = generators.ScanSequence.__getitem__
    batches_read = []

    def read_and_note(self, index):
        batches_read.append(index)
        return read(self, index)

    monkeypatch.setattr(generators.ScanSequence, "__getitem__", read_and_note)
    run(settings, tiny, two_sequences, tmp_path)
    times_each = config.CACHED_AUGMENTATIONS + 1  # the validation scans once
    assert sorted(batches_read) == sorted([0, 1, 2] * times_each)
