"""How do scans reach the network, fast and repeatably?"""

from braintumor import generators, images, splits
from braintumor.generators import AUGMENTATIONS, ScanSequence

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

AUGMENTATION = AUGMENTATIONS["original"]
STILL = dict(rotation=0.0, shift=0.0, flip=False)


def gray_scans(count, size=8):
    """Scans of one gray each, which no flip, rotation or shift changes, and which is their number."""
    return np.repeat(np.arange(count, dtype="uint8"), size * size).reshape(
        count, size, size
    )


def sequence_of(
    count, *, batch_size=4, classes=3, augmentation=AUGMENTATION, seed=0, epoch=0
):
    sequence = ScanSequence(
        gray_scans(count),
        np.arange(count) % classes,
        classes=classes,
        batch_size=batch_size,
        augmentation=augmentation,
        seed=seed,
    )
    sequence.epoch = epoch
    return sequence


def epoch_of(sequence):
    """All batches of an epoch in one: (images, one_hot)."""
    images, one_hot = zip(*[sequence[index] for index in range(len(sequence))])
    return np.concatenate(images), np.concatenate(one_hot)


def numbers(images):
    return np.rint(images[:, 4, 4, 0] * 255).astype(int)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (16, 16), dtype="uint8")


# --- batches ---

any_sequence = dict(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
)


@hypothesis_settings(deadline=None, max_examples=40)
@given(**any_sequence)
def test_every_scan_comes_once_an_epoch_with_its_own_label(
    count, batch_size, seed, epoch
):
    sequence = sequence_of(count, batch_size=batch_size, seed=seed, epoch=epoch)
    images, one_hot = epoch_of(sequence)
    assert sorted(numbers(images)) == list(range(count))
    assert (one_hot.argmax(axis=1) == numbers(images) % 3).all()
    assert (one_hot.sum(axis=1) == 1).all()


@hypothesis_settings(deadline=None, max_examples=20)
@given(**any_sequence)
def test_the_same_seed_and_epoch_give_the_same_batches_in_any_order_of_asking(
    count, batch_size, seed, epoch
):
    first, again = (
        sequence_of(count, batch_size=batch_size, seed=seed, epoch=epoch)
        for _ in range(2)
    )
    forwards = [first[index] for index in range(len(first))]
    backwards = [again[index] for index in reversed(range(len(again)))][::-1]
    for one, other in zip(forwards, backwards):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_another_epoch_has_another_order_and_another_augmentation():
    first, second = (epoch_of(sequence_of(30, epoch=epoch))[0] for epoch in (0, 1))
    assert numbers(first).tolist() != numbers(second).tolist()
    noisy = np.random.default_rng(0).integers(0, 256, (1, 16, 16), dtype="uint8")
    sequence = ScanSequence(
        noisy, [0], classes=1, batch_size=1, augmentation=AUGMENTATION, seed=0
    )
    before = sequence[0][0]
    sequence.epoch = 1
    assert (sequence[0][0] != before).any()


def test_another_seed_has_another_order():
    first, second = (epoch_of(sequence_of(30, seed=seed))[0] for seed in (0, 1))
    assert numbers(first).tolist() != numbers(second).tolist()


def test_every_scan_of_an_epoch_is_augmented_differently(noise):
    sequence = ScanSequence(
        np.stack([noise] * 8),
        [0] * 8,
        classes=1,
        batch_size=4,
        augmentation=AUGMENTATION,
        seed=0,
    )
    images, _ = epoch_of(sequence)
    assert len({image.tobytes() for image in images}) == 8


@pytest.mark.parametrize("augmentation", [AUGMENTATION, None])
def test_a_batch_is_float32_in_0_to_1_with_one_channel(augmentation):
    noise = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype="uint8")
    noise[0, 0, :2] = 0, 255
    sequence = ScanSequence(
        noise, [1] * 10, classes=3, batch_size=4, augmentation=augmentation, seed=0
    )
    images, one_hot = sequence[0]
    assert (images.shape, images.dtype) == ((4, 8, 8, 1), np.float32)
    assert (one_hot.shape, one_hot.dtype) == ((4, 3), np.float32)
    whole = epoch_of(sequence)[0]
    assert whole.min() >= 0 and 0.9 < whole.max() <= 1


def test_the_last_batch_is_short():
    sequence = sequence_of(10, batch_size=4)
    assert [len(sequence[index][0]) for index in range(len(sequence))] == [4, 4, 2]


def test_scans_to_evaluate_on_are_untouched_and_keep_their_order_in_every_epoch(noise):
    images = np.stack([noise, noise.T, noise[::-1]])
    for epoch in (0, 5):
        sequence = ScanSequence(
            images, [0, 1, 2], classes=3, batch_size=2, augmentation=None, seed=0
        )
        sequence.epoch = epoch
        scans, one_hot = epoch_of(sequence)
        np.testing.assert_array_equal(scans[..., 0], images.astype("float32") / 255)
        assert one_hot.argmax(axis=1).tolist() == [0, 1, 2]


def test_fit_draws_every_epoch_in_step_with_its_callbacks():
    drawn = []

    class Recorded(ScanSequence):
        def __getitem__(self, index):
            drawn.append((self.epoch, index))
            return super().__getitem__(index)

    class SetEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            sequence.epoch = epoch
            drawn.append(f"epoch {epoch} begins")

        def on_epoch_end(self, epoch, logs=None):
            drawn.append(f"epoch {epoch} ends")

    sequence = Recorded(
        gray_scans(12),
        np.arange(12) % 3,
        classes=3,
        batch_size=4,
        augmentation=STILL,
        seed=0,
    )
    model = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(loss="categorical_crossentropy")
    model.fit(
        sequence,
        initial_epoch=2,
        epochs=5,
        verbose=0,
        shuffle=False,
        callbacks=[SetEpoch()],
    )
    for epoch in (
        2,
        3,
        4,
    ):  # before these, Keras looks at a batch or two to learn the shapes
        begins, ends = (
            drawn.index(f"epoch {epoch} begins"),
            drawn.index(f"epoch {epoch} ends"),
        )
        # several threads draw, so a later batch may be asked for first; it is still given in its place
        assert sorted(drawn[begins + 1 : ends]) == [(epoch, 0), (epoch, 1), (epoch, 2)]
    assert drawn[-1] == "epoch 4 ends"


# --- augmentation ---

limits = dict(rotation=st.floats(0, 180), shift=st.floats(0, 0.5), flip=st.booleans())


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 512), **limits)
def test_every_augmentation_is_a_rigid_motion_within_its_limits(
    seed, size, rotation, shift, flip
):
    matrix = generators.random_affine(
        np.random.default_rng(seed), size, rotation=rotation, shift=shift, flip=flip
    )
    turn = matrix[:, :2]
    assert np.linalg.det(turn) == pytest.approx(1) or (
        flip and np.linalg.det(turn) == pytest.approx(-1)
    )
    np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)
    upright = turn @ np.diag([np.sign(np.linalg.det(turn)), 1])
    assert abs(np.degrees(np.arctan2(upright[1, 0], upright[0, 0]))) <= rotation + 1e-6
    center = np.full(2, (size - 1) / 2)
    assert (abs(turn @ center + matrix[:, 2] - center) <= shift * size + 1e-6).all()


def test_no_rotation_no_shift_and_no_flip_is_the_identity(noise):
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(
        generators.random_affine(generator, 16, **STILL), np.eye(2, 3), atol=1e-12
    )
    np.testing.assert_array_equal(generators.augment(noise, generator, **STILL), noise)


def test_a_flip_alone_mirrors_exactly_left_to_right_half_of_the_time(noise):
    generator = np.random.default_rng(0)
    flipped = [
        generators.augment(noise, generator, **(STILL | {"flip": True}))
        for _ in range(200)
    ]
    mirrored = [np.array_equal(image, noise[:, ::-1]) for image in flipped]
    assert all(
        mirror or np.array_equal(image, noise)
        for mirror, image in zip(mirrored, flipped)
    )
    assert 70 < sum(mirrored) < 130


def test_where_a_shift_leaves_a_gap_the_edge_is_repeated():
    """A scan that gets brighter from left to right, so that black or a mirrored edge in the gap would be seen."""
    gradient = np.tile(np.arange(100, 180, 5, dtype="uint8"), (16, 1))
    change = generators.RandomChange(
        np.random.default_rng(0), 16, rotation=0, shift=0, flip=False
    )
    for columns in (5, -5):
        change.matrix = np.array([[1.0, 0, columns], [0, 1, 0]])
        shifted = change.apply(gradient)
        source = np.clip(np.arange(16) + columns, 0, 15)
        np.testing.assert_array_equal(shifted, gradient[:, source])


# --- reading ---


def write(file, pixels):
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def test_a_scan_of_any_shape_becomes_a_square(tmp_path):
    write(tmp_path / "wide.png", np.full((20, 50), 90, "uint8"))
    write(tmp_path / "colored.png", np.full((40, 10, 3), 200, "uint8"))
    images, boxes = generators.load_images(
        pd.DataFrame({"path": ["wide.png", "colored.png"]}), tmp_path, 16
    )
    assert (images.shape, images[:].dtype) == ((2, 16, 16), np.uint8)
    assert images[:, 3, 3].tolist() == [90, 200]
    assert boxes.shape == (2, 4) and np.isnan(boxes).all()


def test_images_in_a_file_are_those_that_were_put_there(noise):
    images = generators.ImagesOnDisk((np.rot90(noise, turn) for turn in range(4)), 16)
    np.testing.assert_array_equal(images[[2, 0]], [np.rot90(noise, 2), noise])
    np.testing.assert_array_equal(images[3], np.rot90(noise, 3))
    assert len(images) == len(list(images)) == 4


def test_scans_come_in_the_order_of_the_rows(tmp_path):
    for number in range(9):
        write(tmp_path / f"{number}.png", np.full((4, 4), number, "uint8"))
    order = [4, 2, 8, 0, 1]
    images, _ = generators.load_images(
        pd.DataFrame({"path": [f"{number}.png" for number in order]}), tmp_path, 4
    )
    assert images[:, 0, 0].tolist() == order


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff broken"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    scan = tmp_path / "Training/glioma_tumor/broken.jpg"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^'Training/glioma_tumor/broken.jpg' cannot be read \("
    ):
        generators.load_images(
            pd.DataFrame({"path": ["Training/glioma_tumor/broken.jpg"]}), tmp_path, 16
        )


def test_the_sequences_of_a_study(few_phantoms, quick):
    root, table = few_phantoms
    table = splits.assign_subsets(table, "original", 0)
    train, validation = generators.sequences(table, root, quick(image_size=32, seed=3))
    assert (train.augmentation, train.seed, validation.augmentation) == (
        AUGMENTATION,
        3,
        None,
    )
    assert (len(train.images), len(validation.images)) == (28, 4)
    scans, one_hot = epoch_of(validation)
    rows = table[table["subset"] == "validation"]
    expected = (
        generators.load_images(rows, root, 32)[0][..., None].astype("float32") / 255
    )
    np.testing.assert_array_equal(scans, expected)
    labels = sorted(table["label"].unique())
    assert [labels[best] for best in one_hot.argmax(axis=1)] == rows["label"].tolist()


# --- what a recipe with options adds ---


def test_the_head_is_cropped_to_a_square_that_keeps_its_shape():
    scan = np.zeros((100, 120), "uint8")
    cv2.ellipse(scan, (70, 40), (20, 30), 0, 0, 360, 160, -1)
    square, (x, y) = images.head_square(scan)
    assert square.shape == (61, 61) and (x, y) == (40, 10)
    columns, rows = ((square > 128).any(axis=axis).sum() for axis in (0, 1))
    assert abs(columns - 41) <= 1 and abs(rows - 61) <= 1
    assert (square.min(), square.max()) == (0, 255)


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    gray=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_any_scan_has_a_head_square_even_one_without_a_head(height, width, gray, seed):
    blank = np.full((height, width), gray, "uint8")
    noisy = np.random.default_rng(seed).integers(0, 256, (height, width), dtype="uint8")
    for scan in (blank, noisy):
        square, _ = images.head_square(scan)
        assert square.shape[0] == square.shape[1] and square.dtype == np.uint8


@pytest.mark.parametrize("frame", ["scan", "head"])
def test_boxes_follow_the_scan_into_its_square(tmp_path, frame):
    scan = np.zeros((80, 100), "uint8")
    cv2.circle(scan, (60, 40), 24, 120, -1)
    scan[34:42, 58:70] = 255
    write(tmp_path / "scan.png", scan)
    table = pd.DataFrame(
        dict(path=["scan.png"], box_x=[58], box_y=[34], box_w=[12], box_h=[8])
    )
    images, boxes = generators.load_images(table, tmp_path, 200, frame)
    x, y, width, height = np.rint(boxes[0]).astype(int)
    down, right = np.nonzero(images[0] > 230)
    assert (right.min(), down.min()) == pytest.approx((x, y), abs=3)
    assert (np.ptp(right), np.ptp(down)) == pytest.approx((width, height), abs=4)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_gives_a_scan_of_the_same_size(noise, name):
    generator = np.random.default_rng(0)
    for _ in range(50):
        image = generators.augment(noise, generator, **AUGMENTATIONS[name])
        assert (image.shape, image.dtype) == (noise.shape, np.uint8)


def test_a_gray_scale_is_a_lookup_table_and_changes_from_scan_to_scan():
    generator = np.random.default_rng(0)
    scales = [generators.random_intensity_curve(generator) for _ in range(50)]
    assert all((scale.shape, scale.dtype) == ((256,), np.uint8) for scale in scales)
    assert len({scale.tobytes() for scale in scales}) == 50


def test_the_options_of_a_recipe_reach_the_sequences(few_phantoms, quick):
    root, table = few_phantoms
    table = splits.assign_subsets(table, "original", 0)
    train, validation = generators.sequences(
        table, root, quick(recipe="scratch+head+looks", image_size=32)
    )
    assert (train.augmentation, validation.augmentation) == (
        AUGMENTATIONS["looks"],
        None,
    )
    rows = table[table["subset"] == "validation"]
    expected = generators.load_images(rows, root, 32, "head")[0]
    np.testing.assert_array_equal(validation.images, expected)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.floats(0, 0.9))
def test_smoothed_targets_are_shares(labels, smoothing):
    images = np.zeros((len(labels), 2, 2), "uint8")
    how = dict(classes=3, batch_size=len(labels), augmentation=None, seed=0)
    smooth = ScanSequence(images, labels, label_smoothing=smoothing, **how)[0][1]
    assert smooth.dtype == np.float32 and smooth.sum(axis=1) == pytest.approx(1)
    assert (smooth.argmax(axis=1) == labels).all()
    assert smooth.min(axis=1) == pytest.approx(smoothing / 3, abs=1e-6)


def test_smoothing_and_weights_are_for_training_scans_only(few_phantoms, quick):
    root, table = few_phantoms
    table = splits.assign_subsets(table, "original", 0)
    settings = quick(recipe="scratch+smooth+balanced", image_size=32)
    train, validation = generators.sequences(table, root, settings)
    assert not set(np.unique(train.target_of_class)) <= {0.0, 1.0}
    assert sum(train.class_weight[label] for label in train.labels) == pytest.approx(
        len(train.images)
    )
    np.testing.assert_array_equal(validation.target_of_class, np.eye(4))
    assert validation.class_weight is None
