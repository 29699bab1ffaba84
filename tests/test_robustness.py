"""What changes of a scan do, and what is said of predictions after them."""

from braintumor.studies import robustness

import numpy as np
import pandas as pd
import pytest

SCANS = np.random.default_rng(0).random((6, 100, 100, 1), dtype="float32")
LABELS = pd.Series([0, 1, 0, 1, 0, 1])
GROUPS = pd.Series(list("aabbcc"))


class Brightness:
    """Class 1 where the left half of a scan is brighter than a threshold."""

    def __init__(self, threshold):
        self.threshold = threshold

    def predict_on_batch(self, scans):
        means = scans[:, :, :50, 0].mean(axis=(1, 2))
        return np.eye(2)[(means > self.threshold).astype(int)]


@pytest.mark.parametrize("change", robustness.CHANGES, ids=lambda change: change.name)
def test_a_change_leaves_shape_type_and_range_and_has_a_strength_that_does_nothing(
    change,
):
    for strength in change.strengths:
        changed = robustness.change_scans(SCANS, change, strength)
        assert changed.shape == SCANS.shape and changed.dtype == "float32"
        assert changed.min() >= 0 and changed.max() <= 1
        difference = np.abs(changed - SCANS).max()
        if strength == change.unchanged:
            assert difference < 1e-6
        else:
            assert difference > 0.01
    assert len(change.labels) in (0, len(change.strengths))


def test_changes_go_where_they_say():
    image = SCANS[0, ..., 0]
    np.testing.assert_allclose(robustness.shift(image, 10)[:, 10:], image[:, :-10])
    np.testing.assert_array_equal(robustness.flip(image, 1), image[:, ::-1])
    np.testing.assert_array_equal(robustness.flip(image, 2), image[::-1])
    np.testing.assert_allclose(robustness.rotate(image, 90), np.rot90(image), atol=1e-5)


def test_accuracy_differences_and_the_most_frequent_prediction():
    scans = np.zeros((6, 100, 100, 1), "float32")
    scans[1::2, :, :50] = 1  # the left half of scans of class 1
    rows = robustness.evaluate_changes(
        Brightness(0.5), scans, LABELS, GROUPS, [robustness.FLIP]
    ).set_index("strength")
    assert rows["accuracy"].tolist() == [1, 0.5, 1]
    assert rows["difference"].tolist() == [0, -0.5, 0]
    # mirrored, all of them are called 0
    assert rows["most_frequent_share"].tolist() == [0.5, 1, 0.5]
    assert rows.at[1, "most_frequent"] == 0
    # one of two scans of each group is wrong, so groups do not differ
    assert rows.loc[1, ["low", "high"]].tolist() == [0.5, 0.5]
