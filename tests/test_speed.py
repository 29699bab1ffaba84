"""Does accuracy pay for speed? Each speed-up is taken back, and the training must end as well as before."""

from braintumor import backbones, dataset, generators, models, splits, training
from braintumor.support import frozen_features

import keras
import numpy as np
import phantoms
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from scipy.stats import ttest_ind

pytestmark = pytest.mark.slow
SEEDS = range(4)
LEVEL = 0.01  # of a t-test between the seeds with and those without
HEAD = dict(recipe="transfer", head_epochs=12, epochs=12)
RECIPES = {"scratch": dict(recipe="scratch", head_epochs=0, epochs=12), "head": HEAD}


@pytest.fixture(scope="module")
def small():
    """A backbone of three convolutions, each with batch norm, that learns what phantoms show; gives its name."""

    def constructor(*, weights, include_top, input_shape, name):
        features = inputs = keras.Input(input_shape)
        for filters in (16, 32, 64):
            convolution = keras.layers.Conv2D(
                filters, 3, strides=2, padding="same", name=f"convolution{filters}"
            )
            features = keras.layers.ReLU()(
                keras.layers.BatchNormalization()(convolution(features))
            )
        return keras.Model(inputs, features, name=name)

    scaling = dict(scale=4.0, offset=-1.0)
    entry = backbones.Backbone(
        constructor, "small.weights.h5", scaling, "convolution64", 3e-3
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "small", entry)
        yield "small"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """800 phantoms of 64 px, as the train and the validation sequence of any settings."""
    root = tmp_path_factory.mktemp("speed") / "phantoms"
    phantoms.write_phantoms(root, scans=800, seed=0, size=64)
    table = splits.assign_subsets(dataset.scan_table(root), "original", 0)
    return lambda settings: generators.sequences(table, root, settings)


@pytest.fixture(scope="module")
def losses(scans, quick, small, tmp_path_factory):
    """What trainings of so many seeds end with: validation losses, shape (seeds,)."""

    def ends(**changes):
        found = []
        for seed in SEEDS:
            settings = quick(
                seed=seed, batch_size=32, precision="mixed_bfloat16", **changes
            )
            network = models.build_classifier(settings, small, classes=4)
            history = training.train(
                network,
                *scans(settings),
                settings,
                tmp_path_factory.mktemp("run") / "one",
            )
            found.append(history["val_loss"].iloc[-1])
        return np.array(found)

    return ends


@pytest.fixture(scope="module")
def fast(losses):
    """The losses of each recipe with every speed-up, in bfloat16."""
    return {name: losses(**how) for name, how in RECIPES.items()}


def resample_three_times(change, image):
    """In place of ``RandomChange.apply``: a class of Keras moves the scan, by a draw of its own."""
    ranges = generators.AUGMENTATIONS["original"]
    original = ImageDataGenerator(
        rotation_range=ranges["rotation"],
        width_shift_range=ranges["shift"],
        height_shift_range=ranges["shift"],
        horizontal_flip=ranges["flip"],
    )
    seed = int(1e6 * np.abs(change.matrix).sum())
    scan = image[..., None].astype("float32")
    moved = original.random_transform(scan, seed)
    return moved[..., 0].round().astype("uint8")


def invert(change, image):
    """In place of ``RandomChange.apply``: what no validation scan looks like."""
    return 255 - image


def differ(one, other):
    return ttest_ind(one, other, equal_var=False).pvalue < LEVEL


@pytest.mark.parametrize(
    ("recipe", "place", "name", "slow"),
    [
        ("scratch", models, "choose_precision", lambda precision: "float32"),
        ("scratch", models, "use_fused_kernels", lambda layers, on_gpu: None),
        ("scratch", generators.RandomChange, "apply", resample_three_times),
        # a new augmentation in each epoch
        ("head", frozen_features, "CACHED_AUGMENTATIONS", HEAD["epochs"]),
    ],
    ids=["bfloat16", "fused batch norm", "one resampling", "stored features"],
)
def test_a_speed_up_costs_no_accuracy(
    fast, losses, monkeypatch, recipe, place, name, slow
):
    monkeypatch.setattr(place, name, slow)
    assert not differ(fast[recipe], losses(**RECIPES[recipe]))


def test_what_does_cost_accuracy_is_noticed(fast, losses, monkeypatch):
    monkeypatch.setattr(generators.RandomChange, "apply", invert)
    assert differ(fast["scratch"], losses(**RECIPES["scratch"]))
