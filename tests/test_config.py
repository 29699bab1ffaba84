"""What exactly is being run?"""

import dataclasses

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


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(TypeError, match="image_sise"):
        config.settings_from("sample", seed=0, image_sise=64)


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
    more = config.parse_recipe("scratch+head+zero_init")
    assert more == dataclasses.replace(plain, frame="head", zero_init=True)


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
