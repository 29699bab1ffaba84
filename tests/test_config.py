"""What exactly is being run?"""

import dataclasses
import json
import re

from braintumor import config, runs

import pytest


def test_a_preset_gives_all_settings():
    settings = config.settings_from("cpu", seed=7)
    assert (settings.preset, settings.image_size, settings.seed) == ("cpu", 128, 7)
    assert set(dataclasses.asdict(settings)) == {
        "preset",
        "seed",
        "unreadable",
        *config.PRESETS["cpu"],
    }


@pytest.mark.parametrize("name", config.PRESETS)
def test_every_preset_is_complete_and_names_itself(name):
    assert config.settings_from(name, seed=0).preset == name


def test_single_values_can_be_changed_without_changing_the_preset():
    assert config.settings_from("cpu", seed=0, image_size=32).image_size == 32
    assert config.settings_from("cpu", seed=0).image_size == 128


def test_the_environment_chooses_another_preset_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setenv("BRAINTUMOR_PRESET", "sample")
    settings = config.settings_from("full", seed=0)
    assert (settings.preset, settings.image_size) == ("sample", 48)
    assert "the preset 'sample' instead of 'full'" in capsys.readouterr().out


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("BRAINTUMOR_PRESET", "")
    assert config.settings_from("full", seed=0).preset == "full"


def test_an_unknown_preset_is_an_error_that_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("BRAINTUMOR_PRESET", "huge")
    with pytest.raises(
        ValueError, match="no preset 'huge'; .* sample, cpu, cpu-scratch, full"
    ):
        config.settings_from("sample", seed=0)


def test_an_unknown_preset_does_not_blame_a_variable_that_is_not_set():
    with pytest.raises(ValueError, match="no preset 'foo'; choose one of: sample, cpu"):
        config.settings_from("foo", seed=0)


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(TypeError, match="image_sise"):
        config.settings_from("sample", seed=0, image_sise=64)


# --- the recipe decides where a network starts ---


@pytest.mark.parametrize("preset", config.PRESETS)
@pytest.mark.parametrize(
    ("recipe", "weights"),
    [("scratch", "random"), ("scratch+looks", "random"), ("transfer", "imagenet")],
)
def test_weights_follow_the_recipe_unless_they_are_named(preset, recipe, weights):
    settings = config.settings_from(preset, seed=0, recipe=recipe)
    assert (settings.preset, settings.weights) == (preset, weights)
    named = config.settings_from(preset, seed=0, recipe="transfer", weights="random")
    assert named.weights == "random"


@pytest.mark.parametrize("preset", config.PRESETS)
def test_the_original_recipe_starts_as_its_preset_does(preset):
    settings = config.settings_from(preset, seed=0, recipe="original")
    assert settings.weights == config.PRESETS[preset]["weights"]


def test_a_recipe_gives_the_same_run_whichever_preset_of_its_size_it_changes():
    scratch = config.settings_from("cpu", seed=0, recipe="scratch")
    transfer = config.settings_from("cpu-scratch", seed=0, recipe="transfer")
    assert dataclasses.replace(scratch, preset="cpu-scratch") == config.settings_from(
        "cpu-scratch", seed=0
    )
    assert dataclasses.replace(transfer, preset="cpu") == config.settings_from(
        "cpu", seed=0
    )


def test_a_training_from_scratch_that_starts_elsewhere_is_refused():
    refused = "^The recipe 'scratch' starts from random weights, not from 'w.h5': set"
    with pytest.raises(ValueError, match=refused):
        config.settings_from("cpu-scratch", seed=0, weights="/home/somebody/w.h5")


def test_residual_blocks_that_start_as_the_identity_need_random_weights():
    refused = "^The recipe 'transfer.zero_init' cannot start from 'imagenet': .*random"
    with pytest.raises(ValueError, match=refused):
        config.settings_from("cpu", seed=0, recipe="transfer+zero_init")


@pytest.mark.parametrize(
    ("preset", "recipe", "kept"),
    [
        ("sample", "transfer+head+looks", "transfer+head+looks"),
        ("cpu-scratch", "transfer+head+looks", "scratch"),
        ("cpu-scratch", "scratch+looks", "scratch+looks"),
        ("full", "scratch", "transfer"),
        ("cpu-scratch", "original", "original"),
    ],
)
def test_a_preset_from_outside_keeps_a_recipe_that_starts_as_its_own_does(
    monkeypatch, capsys, preset, recipe, kept
):
    monkeypatch.setenv("BRAINTUMOR_PRESET", preset)
    settings = config.settings_from("cpu", seed=0, recipe=recipe)
    assert settings.recipe == kept
    assert settings.weights == config.PRESETS[preset]["weights"]
    changed = f"and its recipe '{kept}' instead of '{recipe}'."
    printed = capsys.readouterr().out
    assert (changed in printed) == (kept != recipe)


def test_settings_never_change_during_a_run():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.settings_from("sample", seed=0).seed = 1


def test_runs_at_128_px_share_a_folder_and_a_quick_run_overwrites_no_committed_result():
    folders = {
        name: config.settings_from(name, seed=0).results_dir for name in config.PRESETS
    }
    assert folders.pop("sample").is_relative_to(config.ROOT / "build")
    results = config.ROOT / "results"
    assert folders == {"cpu": results, "cpu-scratch": results, "full": results / "full"}


def test_presets_that_share_a_folder_name_their_runs_differently():
    cpu, scratch = (
        config.settings_from(name, seed=0) for name in ("cpu", "cpu-scratch")
    )
    assert runs.run_name(cpu, "vgg16") != runs.run_name(scratch, "vgg16")


def test_only_the_preset_from_scratch_needs_no_pretrained_weights():
    weights = {name: values["weights"] for name, values in config.PRESETS.items()}
    assert weights.pop("cpu-scratch") == "random"
    assert set(weights.values()) == {"imagenet"}


def test_folders_belong_to_the_checkout_wherever_it_is_run_from():
    assert (config.ROOT / "pyproject.toml").exists()
    assert {
        folder.parent
        for folder in (config.DATA_DIR, config.RESULTS_DIR, config.BUILD_DIR)
    } == {config.ROOT}


def test_options_behind_a_recipe_change_what_it_decides():
    plain = config.parse_recipe("scratch")
    more = config.parse_recipe("scratch+zero_init+head")
    assert more == dataclasses.replace(plain, frame="head", zero_init=True)


@pytest.mark.parametrize(
    ("name", "right_name"),
    [
        ("scratch+head+zero_init", "scratch+zero_init+head"),
        ("transfer+looks+looks", "transfer+looks"),
        ("transfer+looks+head+looks", "transfer+head+looks"),
    ],
)
def test_a_recipe_has_one_name(name, right_name):
    with pytest.raises(ValueError, match=f"is spelled '{re.escape(right_name)}'.$"):
        config.parse_recipe(name)


def test_two_options_for_one_field_are_refused(monkeypatch):
    monkeypatch.setitem(config.RECIPE_OPTIONS, "views", {"augmentation": "views"})
    refused = (
        r"^The recipe 'transfer\+head\+looks\+views' sets augmentation twice: write "
        r"'transfer\+head\+views' or 'transfer\+head\+looks'.$"
    )
    with pytest.raises(ValueError, match=refused):
        config.parse_recipe("transfer+head+looks+views")


@pytest.mark.parametrize("base", ["transfer", "original"])
def test_an_option_that_changes_nothing_is_refused(base):
    refused = rf"^The recipe '{base}\+looks\+quick' is no other than '{base}\+looks': "
    with pytest.raises(ValueError, match=refused):
        config.parse_recipe(f"{base}+looks+quick")
    assert config.parse_recipe("scratch+quick").learning_rate_factor > 1


COMMITTED_RUNS = sorted(config.RESULTS_DIR.rglob("settings.json"))


@pytest.mark.parametrize("file", COMMITTED_RUNS, ids=lambda file: file.parent.name)
def test_the_settings_of_committed_runs_can_still_be_asked_for(file):
    stored = json.loads(file.read_text())
    names = {field.name for field in dataclasses.fields(config.Settings)}
    asked = {name: stored[name] for name in names & set(stored)}
    model = stored["model"]
    assert runs.run_name(config.Settings(**asked), model) == file.parent.name
    # as the command line does, which has no option for the epochs of the head
    preset = asked.pop("preset")
    head_epochs = asked.pop("head_epochs")
    assert config.settings_from(preset, **asked).head_epochs == head_epochs


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("imagenet", True),
        (config.NOT_CHECKED, True),
        ("random", False),
        ("mine.weights.h5", False),
    ],
)
def test_what_provenance_says_tells_whether_a_run_started_from_imagenet(
    weights, expected
):
    assert config.starts_from_imagenet(weights) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", 0),
        ("head_epochs", -1),
        ("image_size", 31),
        ("max_scans", 0),
        ("seed", -1),
    ],
)
def test_a_number_out_of_range_is_named_when_settings_are_made(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value} must be a whole number, "):
        config.settings_from("sample", **{"seed": 0, name: value})


@pytest.mark.parametrize("name", ["protocol", "precision", "unreadable", "recipe"])
def test_an_unknown_choice_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"no {name} 'magic'; choose one of: "):
        config.settings_from("sample", **{"seed": 0, name: "magic"})


def test_no_weights_at_all_are_an_error():
    with pytest.raises(ValueError, match="^weights is empty: set it to"):
        config.settings_from("sample", seed=0, weights="")


@pytest.mark.parametrize("name", ["magic", "scratch+magic", "scratch+", "+head", ""])
def test_an_unknown_recipe_or_option_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(
        ValueError,
        match=r"choose one of: original, transfer, scratch, \+zero_init, \+head",
    ):
        config.parse_recipe(name)
