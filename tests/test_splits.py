"""Who trains and who evaluates?"""

from braintumor import config, dataset, splits

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

SIDES = ["train", "validation", "test"]


@pytest.fixture(scope="module")
def published():
    """The committed table of all 3,264 scans."""
    return pd.read_csv(config.DATA_DIR / "image_groups.csv")


@st.composite
def tables(draw):
    """A scan table with at least five groups a class to train on, and some in both folders or in conflict."""
    rows = []
    for label in draw(st.sampled_from([["a", "b"], ["a", "b", "c"]])):
        for number in range(draw(st.integers(5, 9))):
            scans = draw(st.integers(1, 4))
            rows += [("training", label, f"patient-{label}{number}", False)] * scans
        extra = st.tuples(
            st.sampled_from(["training", "testing"]),
            st.just(label),
            st.sampled_from([f"patient-{label}x", f"patient-{label}y"]),
            st.booleans(),
        )
        rows += draw(st.lists(extra, max_size=8))
        rows.append(("testing", label, f"patient-{label}y", False))
    rows = draw(st.permutations(rows))
    table = pd.DataFrame(rows, columns=["split", "label", "group", "label_conflict"])
    return table.assign(path=[f"{number:03d}" for number in range(len(table))])


any_table = given(table=tables(), seed=st.integers(0, 2**32 - 1))
examples = hypothesis_settings(deadline=None, max_examples=25)


@examples
@any_table
def test_no_patient_is_on_two_sides(table, seed):
    table = splits.assign_subsets(table, "patient", seed)
    sides = table[table["subset"].isin(SIDES)].groupby("group")["subset"].nunique()
    assert (sides == 1).all()


@examples
@given(
    table=tables(),
    seed=st.integers(0, 9),
    protocol=st.sampled_from(["patient", "original"]),
)
def test_every_scan_is_in_exactly_one_subset(table, seed, protocol):
    result = splits.assign_subsets(table, protocol, seed)
    assert result["path"].tolist() == sorted(table["path"])
    assert set(result["subset"]) <= {*SIDES, "excluded"}
    assert set(SIDES) <= set(result["subset"])


@examples
@any_table
def test_what_is_excluded_says_why(table, seed):
    result = splits.assign_subsets(table, "patient", seed)
    in_testing = result["group"].isin(result.loc[result["split"] == "testing", "group"])
    expected = pd.Series("", result.index)
    expected[(result["split"] == "training") & in_testing] = "group occurs in Testing"
    expected[result["label_conflict"]] = "label conflict"
    assert result["excluded_because"].tolist() == expected.tolist()
    assert ((result["subset"] == "excluded") == (expected != "")).all()


@examples
@given(
    table=tables(),
    seed=st.integers(0, 9),
    protocol=st.sampled_from(["patient", "original"]),
)
def test_the_order_of_rows_does_not_matter(table, seed, protocol):
    shuffled = table.sample(frac=1, random_state=seed)
    expected = splits.assign_subsets(table, protocol, seed)
    pd.testing.assert_frame_equal(
        splits.assign_subsets(shuffled, protocol, seed), expected
    )


@examples
@given(table=tables(), seed=st.integers(0, 9))
def test_the_original_holds_out_the_first_fifth_of_each_class_by_name(table, seed):
    result = splits.assign_subsets(table, "original", seed)
    for _, scans in result[result["split"] == "training"].groupby("label"):
        held_out = int(0.2 * len(scans))
        assert scans["subset"].tolist() == ["validation"] * held_out + ["train"] * (
            len(scans) - held_out
        )
    assert ((result["split"] == "testing") == (result["subset"] == "test")).all()


def test_the_same_seed_gives_the_same_split_and_another_seed_another_one(published):
    first, again, other = (
        splits.assign_subsets(published, "patient", seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first["subset"].equals(other["subset"])


def test_the_table_that_comes_in_is_left_alone(published):
    before = published.copy()
    splits.assign_subsets(published, "patient", 0)
    pd.testing.assert_frame_equal(published, before)


def test_the_published_scans_under_the_original_protocol(published):
    counts = splits.assign_subsets(published, "original", 0)["subset"].value_counts()
    assert counts.to_dict() == {"train": 2297, "validation": 573, "test": 394}


def test_the_published_scans_under_the_patient_protocol(published):
    counts = splits.assign_subsets(published, "patient", 0)["subset"].value_counts()
    assert (counts["train"], counts["validation"]) == (1941, 485)
    assert counts.sum() == len(published)


def test_nearly_all_validation_patients_of_the_original_are_known_from_training(
    published,
):
    leakage = splits.leakage(splits.assign_subsets(published, "original", 0))
    assert leakage == {
        "known": 479,
        "shared": 470,
        "share": pytest.approx(0.981, abs=0.001),
    }


@pytest.mark.parametrize("seed", range(3))
def test_no_validation_patient_of_the_patient_protocol_is_known_from_training(
    published, seed
):
    leakage = splits.leakage(splits.assign_subsets(published, "patient", seed))
    assert leakage["shared"] == 0 and leakage["known"] > 300


def test_where_no_patient_is_known_nothing_is_said_about_leakage():
    table = pd.DataFrame(
        {"group": ["cluster-1", "cluster-1"], "subset": ["train", "validation"]}
    )
    assert splits.leakage(table) == {"known": 0, "shared": 0, "share": 0.0}


def test_too_few_patients_to_be_split_are_an_error_with_a_way_out(few_phantoms):
    with pytest.raises(
        ValueError,
        match=r"Class 'glioma' has 2 groups .* at least 5: .* protocol 'original'",
    ):
        splits.assign_subsets(few_phantoms[1], "patient", 0)


def test_an_unknown_protocol_is_an_error_that_lists_the_known_ones(published):
    with pytest.raises(
        ValueError, match="no protocol 'random'; choose one of: patient, original"
    ):
        splits.assign_subsets(published, "random", 0)


def test_counts_are_a_table_for_people(few_phantoms):
    counts = splits.subset_counts(splits.assign_subsets(few_phantoms[1], "original", 0))
    assert counts.loc["glioma"].to_dict() == {
        "test": 4,
        "train": 7,
        "validation": 1,
        "all": 12,
    }
    assert counts.loc["all", "all"] == 48


def test_counts_name_the_reason_of_exclusion(published):
    counts = splits.subset_counts(splits.assign_subsets(published, "patient", 0))
    reasons = {"excluded: group occurs in Testing", "excluded: label conflict"}
    assert set(counts.columns) == {*SIDES, *reasons, "all"}


def test_a_study_is_the_scans_their_subsets_and_a_report(
    few_phantoms, quick, monkeypatch, capsys
):
    monkeypatch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
    root, table, report = splits.load_study(quick())
    assert root == few_phantoms[0] and len(table) == 48
    assert table["subset"].value_counts().to_dict() == {
        "train": 28,
        "test": 16,
        "validation": 4,
    }
    assert report.status == "phantoms"
    assert "PHANTOMS" in capsys.readouterr().out


def test_a_study_on_a_part_of_the_scans_still_holds_every_class(
    few_phantoms, quick, monkeypatch
):
    monkeypatch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
    _, table, report = splits.load_study(quick(max_scans=40))
    assert table["label"].nunique() == 4 and report.scans == 48


# --- a part for quick runs ---

scan = st.tuples(
    st.integers(0, 15),
    st.sampled_from(["training", "testing"]),
    st.sampled_from("abc"),
    st.booleans(),
)


def small_table(scans):
    table = pd.DataFrame(scans, columns=["group", "split", "label", "label_conflict"])
    return table.assign(
        group="g" + table["group"].astype(str),
        path=[f"{number:03d}" for number in range(len(table))],
    )


def groups_to_train(table):
    """How many groups of each class the patient protocol leaves in Training."""
    in_testing = table["group"].isin(table.loc[table["split"] == "testing", "group"])
    return (
        table[~in_testing & ~table["label_conflict"]]
        .groupby("label")["group"]
        .nunique()
    )


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    scans=st.lists(scan, min_size=1, max_size=80),
    wanted=st.integers(1, 80),
    seed=st.integers(0, 9),
)
def test_a_part_keeps_groups_whole_and_every_class_in_both_splits(scans, wanted, seed):
    table = small_table(scans)
    part = splits.stratified_part(table, wanted, seed)
    assert set(part["path"]) == set(
        table.loc[table["group"].isin(part["group"]), "path"]
    )
    in_testing = table["group"].isin(table.loc[table["split"] == "testing", "group"])
    usable = table[
        ~table["label_conflict"] & (in_testing == (table["split"] == "testing"))
    ]
    assert set(zip(part["split"], part["label"])) >= set(
        zip(usable["split"], usable["label"])
    )
    assert len(part) == len(table) or len(table) > wanted
    enough = groups_to_train(table).clip(upper=5)
    assert (groups_to_train(part).reindex(enough.index, fill_value=0) >= enough).all()
    shuffled = table.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(splits.stratified_part(shuffled, wanted, seed), part)


@pytest.mark.parametrize("wanted", [400, 800, 1600])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_part_of_the_published_scans_is_like_the_whole(wanted, seed):
    table = pd.read_csv(config.DATA_DIR / "image_groups.csv")
    part = splits.stratified_part(table, wanted, seed)
    assert len(part) == pytest.approx(wanted, rel=0.2)
    shares = [frame.groupby("label").size() / len(frame) for frame in (table, part)]
    assert (shares[0] - shares[1]).abs().max() < 0.08
    assert (part.groupby(["split", "label"]).size() >= 5).all()
    assert (groups_to_train(part) >= 5).all()
    assert not part.equals(splits.stratified_part(table, wanted, seed + 1))


def test_phantoms_never_stand_among_real_results(few_phantoms, monkeypatch):
    monkeypatch.setattr(dataset, "locate_data", lambda: few_phantoms[0])
    with pytest.raises(
        ValueError,
        match="The preset 'cpu' is for real scans: set BRAINTUMOR_DATA or use 'sample'",
    ):
        splits.load_scans(config.settings_from("cpu", seed=0))


# --- the protocol testing, and the other folds ---


@examples
@any_table
def test_testing_trains_on_no_group_that_occurs_in_the_testing_folder(table, seed):
    table = splits.assign_subsets(table, "testing", seed)
    sides = table.groupby("subset")["group"].agg(set)
    assert "validation" not in sides and not sides["train"] & sides.get("test", set())


def test_the_folds_hold_out_every_scan_of_the_testing_protocol_once(published):
    folds = [
        splits.assign_subsets(published, name, 0)
        for name in ("patient", *(f"patient-{n}" for n in range(1, 5)))
    ]
    usable = splits.assign_subsets(published, "testing", 0)["subset"] == "train"
    held_out = sum((fold["subset"] == "validation").astype(int) for fold in folds)
    assert (held_out[usable] == 1).all() and (held_out[~usable] == 0).all()


# --- one source left out ---


def test_no_tumor_of_an_unknown_patient_trains_or_validates_when_sources_are_apart(
    published,
):
    table = splits.assign_subsets(published, "source", 0)
    tumor = table["label"] != "no_tumor"
    known = table["group"].str.startswith("patient-")
    assert known[tumor & table["subset"].isin(["train", "validation"])].all()
    elsewhere = table[table["subset"] == "other_source"]
    assert elsewhere["label"].value_counts().to_dict() == {
        "no_tumor": 57,
        "meningioma": 23,
        "pituitary": 4,
    }
    assert not elsewhere["group"].str.startswith("patient-").any()


def test_leaving_a_source_out_moves_scans_only_from_train_and_validation(published):
    usual, apart = (
        splits.assign_subsets(published, name, 0) for name in ("patient", "source")
    )
    moved = usual["subset"] != apart["subset"]
    assert set(apart["subset"][moved]) == {"other_source"} and set(
        usual["subset"][moved]
    ) == {"train", "validation"}
    sides = apart.groupby("subset")["group"].agg(set)
    assert not sides["other_source"] & (sides["train"] | sides["validation"])
