"""What is trained?"""

import contextlib
import os
from types import SimpleNamespace

from braintumor import backbones, config, models
from braintumor.config import settings_from
from braintumor.support import processor

import keras
import numpy as np
import pytest
from conftest import QUICK

BOTH = ("vgg16", "resnet50")
# TensorFlow asks the processor whether oneDNN has bfloat16, and not whether oneDNN may use it: its own error, then
HELD_BACK = (
    os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT") != "DEFAULT"
    and models.choose_precision("auto") == "float32"
)
BFLOAT16 = pytest.mark.skipif(
    HELD_BACK, reason="ONEDNN_MAX_CPU_ISA keeps oneDNN from bfloat16"
)
SCANS = np.random.default_rng(0).random((6, 32, 32, 1), dtype="float32")
ONE_HOT = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1]]


def build(name, **changes):
    """A classifier by the quick settings, with single values changed."""
    settings = config.Settings(preset="sample", **(QUICK | changes))
    return models.build_classifier(settings, name, classes=4)


@pytest.fixture(params=BOTH)
def network(request, networks):
    return networks[request.param]


def values(layers_or_model):
    """Weights and statistics by name, as they are now."""
    return {
        weight.path: keras.ops.convert_to_numpy(weight)
        for weight in layers_or_model.weights
    }


def moved(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


@contextlib.contextmanager
def few_steps(model):
    """Three small training steps, done one by one, which is faster than compiling a graph; undone afterwards."""
    before = model.get_weights()
    model.compile(
        keras.optimizers.Adam(1e-3), "categorical_crossentropy", run_eagerly=True
    )
    model.fit(SCANS, ONE_HOT, batch_size=2, verbose=0)
    yield
    model.set_weights(before)


# --- structure ---


def test_scans_become_probabilities(network):
    probabilities = keras.ops.convert_to_numpy(network(SCANS[:2]))
    assert probabilities.shape == (2, 4) and network.input_shape == (None, 32, 32, 1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities >= 0).all()


def test_both_backbones_wear_the_same_head(network):
    assert [layer.name for layer in network.layers] == [
        *("scan", "gray_to_rgb", "imagenet_convention", "backbone"),
        *("pooled", "hidden", "dropout", "probabilities"),
    ]
    hidden, dropout, probabilities = network.layers[-3:]
    assert (hidden.units, hidden.activation) == (512, keras.activations.relu)
    assert dropout.rate == 0.5
    assert (probabilities.units, probabilities.activation) == (
        4,
        keras.activations.softmax,
    )


@pytest.mark.parametrize(
    ("name", "backbone", "features"),
    [("vgg16", 14_714_688, 512), ("resnet50", 23_587_712, 2048)],
)
def test_the_number_of_parameters_is_the_published_one(
    networks, name, backbone, features
):
    assert networks[name].get_layer("backbone").count_params() == backbone
    assert networks[name].count_params() == backbone + 512 * (features + 1) + 4 * (
        512 + 1
    )


@pytest.mark.parametrize("name", BOTH)
def test_the_input_convention_is_that_of_keras(networks, name):
    model = networks[name]
    preprocess = getattr(keras.applications, name).preprocess_input
    to_backbone = keras.Model(
        model.input, model.get_layer("imagenet_convention").output
    )
    rgb = np.repeat(SCANS[:2] * 255, 3, axis=-1)
    seen = keras.ops.convert_to_numpy(to_backbone(SCANS[:2]))
    np.testing.assert_allclose(seen, preprocess(rgb.copy()), atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "convention", "black", "white"),
    [("original", "unit", 0, 1), ("scratch", "centred", -1, 3)],
)
def test_the_other_conventions_only_rescale(tiny, recipe, convention, black, white):
    model = build(tiny, recipe=recipe)
    layer = model.get_layer(f"{convention}_convention")
    ends = keras.ops.convert_to_numpy(
        layer(np.array([[[[0.0] * 3, [1.0] * 3]]], "float32"))
    )
    assert ends[0, 0].tolist() == [[black] * 3, [white] * 3]


def test_batch_norm_follows_faster_where_a_recipe_wants_it(tiny, networks):
    model = build(tiny, recipe="scratch")
    assert {
        layer.momentum
        for layer in model.get_layer("backbone").layers
        if hasattr(layer, "momentum")
    } == {0.9}
    assert (
        networks["resnet50"].get_layer("backbone").get_layer("conv1_bn").momentum
        == 0.99
    )


def test_with_zero_init_every_residual_block_starts_as_the_identity():
    model = build("resnet50", recipe="transfer+zero_init")
    base = model.get_layer("backbone")
    last = [layer for layer in base.layers if layer.name.endswith("_3_bn")]
    assert len(last) == 16
    for layer in models.batch_norms(base):
        assert np.all(
            keras.ops.convert_to_numpy(layer.gamma) == (0 if layer in last else 1)
        )


def test_a_backbone_without_residual_blocks_refuses_zero_init():
    with pytest.raises(ValueError, match="^vgg16 has no residual blocks: take .*zero_"):
        build("vgg16", recipe="scratch+zero_init")


def test_the_same_seed_starts_from_the_same_weights(tiny):
    first, again, other = (build(tiny, seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(first, again))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other))


def test_an_unknown_backbone_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="no backbone 'vgg17'; choose one of: vgg16, resnet50"
    ):
        backbones.backbone_named("vgg17")


def test_a_new_backbone_is_one_more_entry(tiny):
    assert build(tiny).name == "tiny"


def test_random_convolutions_keep_the_signal_alive(networks):
    kernel = keras.ops.convert_to_numpy(
        networks["vgg16"].get_layer("backbone").get_layer("block3_conv2").kernel
    )
    assert kernel.std() == pytest.approx((2 / (3 * 3 * 256)) ** 0.5, rel=0.02)  # He


# --- precision ---


@pytest.mark.parametrize(
    "precision", [pytest.param("mixed_bfloat16", marks=BFLOAT16), "mixed_float16"]
)
def test_half_precision_inside_float32_outside(tiny, precision):
    model = build(tiny, precision=precision)
    assert model.get_layer("hidden").compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    probabilities = keras.ops.convert_to_numpy(model(SCANS))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_building_leaves_the_precision_of_other_networks_alone(tiny):
    build(tiny, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(FileNotFoundError):
        build(tiny, precision="mixed_bfloat16", weights="missing.h5")
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_precision_that_is_named_is_taken(precision):
    assert models.choose_precision(precision) == precision


@pytest.fixture
def hardware(monkeypatch, tmp_path):
    """``hardware(device, flags)``: where tensors lie, and what /proc/cpuinfo says (None: it is missing)."""
    for name in ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)

    def pretend(device, flags):
        cpuinfo = tmp_path / "cpuinfo"
        if flags is not None:
            cpuinfo.write_text(flags)
        monkeypatch.setattr(
            keras.ops, "zeros", lambda shape: SimpleNamespace(device=device)
        )
        monkeypatch.setattr(processor, "Path", lambda name: cpuinfo)

    return pretend


@pytest.mark.parametrize(
    ("device", "flags", "chosen"),
    [
        (
            "/job:localhost/replica:0/task:0/device:GPU:0",
            "",
            "mixed_float16",
        ),  # TensorFlow
        ("cuda:0", "", "mixed_float16"),  # JAX and torch
        (
            "/job:localhost/replica:0/task:0/device:CPU:0",
            "flags: avx2 avx512_bf16",
            "mixed_bfloat16",
        ),
        ("cpu:0", "flags: amx_bf16", "mixed_bfloat16"),
        ("cpu", "flags: avx2", "float32"),
        ("cpu", None, "float32"),
    ],
)
def test_auto_is_the_fastest_precision_of_the_hardware(hardware, device, flags, chosen):
    hardware(device, flags)
    assert models.choose_precision("auto") == chosen


@pytest.mark.parametrize(
    ("variable", "value", "chosen"),
    [
        (
            "TF_ENABLE_ONEDNN_OPTS",
            "0",
            "float32",
        ),  # oneDNN off: TensorFlow's own bfloat16 is the slower one
        ("TF_ENABLE_ONEDNN_OPTS", "1", "mixed_bfloat16"),
        (
            "ONEDNN_MAX_CPU_ISA",
            "AVX2",
            "float32",
        ),  # held to this, oneDNN has no bfloat16 convolution at all
        ("ONEDNN_MAX_CPU_ISA", "sse41", "float32"),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE", "float32"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", "mixed_bfloat16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", "mixed_bfloat16"),
        ("ONEDNN_MAX_CPU_ISA", "", "mixed_bfloat16"),
    ],
)
def test_auto_asks_no_more_of_the_processor_than_the_environment_allows(
    hardware, monkeypatch, variable, value, chosen
):
    hardware("cpu", "flags: avx2 avx512_bf16")
    monkeypatch.setenv(variable, value)
    assert models.choose_precision("auto") == chosen


def test_whether_there_is_a_gpu_is_what_keras_lists():
    devices = keras.distribution.list_devices()
    if not devices:
        pytest.skip("Keras on torch lists no devices")
    assert models._on_gpu() == any("gpu" in device.lower() for device in devices)


# --- what trains ---


def test_a_frozen_backbone_does_not_move_and_the_head_does(network):
    models.set_trainable(network, "head")
    before = values(network)
    with few_steps(network):
        changed = moved(before, values(network))
    head = {
        weight.path
        for name in ("hidden", "probabilities")
        for weight in network.get_layer(name).weights
    }
    assert changed - {network.get_layer("dropout").seed_generator.state.path} == head


def test_fine_tuning_moves_late_layers_and_no_statistics(network):
    start = backbones.backbone_named(network.name).fine_tune_from
    models.set_trainable(network, "fine_tune")
    base = network.get_layer("backbone")
    before, first = values(base), [layer.name for layer in base.layers].index(start)
    with few_steps(network):
        changed = moved(before, values(base))
    norms = keras.layers.BatchNormalization
    late = {
        weight.path
        for layer in base.layers[first:]
        if not isinstance(layer, norms)
        for weight in layer.weights
    }
    assert changed <= late
    assert {path for path in late if path.endswith("kernel")} <= changed


def test_training_from_scratch_moves_everything_statistics_too(tiny):
    model = build(tiny)
    models.set_trainable(model, "all")
    before = values(model)
    with few_steps(model):
        changed = moved(before, values(model))
    assert {path.split("/")[-1] for path in changed} >= {
        "kernel",
        "gamma",
        "moving_mean",
        "moving_variance",
    }
    assert {
        weight.path for weight in model.get_layer("backbone").weights
    } - changed <= {
        weight.path for weight in model.weights if weight.path.endswith("bias")
    }


def test_after_the_head_more_of_the_network_trains(network):
    models.set_trainable(network, "head")
    head = len(network.trainable_weights)
    models.set_trainable(network, "fine_tune")
    part = len(network.trainable_weights)
    models.set_trainable(network, "all")
    assert head == 4 < part < len(network.trainable_weights)


# --- files ---


def test_a_saved_model_is_complete_and_loads_in_safe_mode(network, tmp_path):
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(model(SCANS)) for model in (network, loaded))
    )


@pytest.fixture
def weights_folder(networks, tmp_path):
    """A folder with weights of the random VGG16, in the name and the (legacy) format of Keras' ImageNet weights."""
    file = tmp_path / "weights" / backbones.BACKBONES["vgg16"].imagenet_file
    file.parent.mkdir()
    networks["vgg16"].get_layer("backbone").save(file)
    return file.parent


@pytest.mark.parametrize("name", ["", backbones.BACKBONES["vgg16"].imagenet_file])
def test_weights_may_come_from_a_folder_or_a_file(weights_folder, networks, name):
    model = build("vgg16", weights=str(weights_folder / name), seed=9)
    loaded, saved = (
        each.get_layer("backbone").get_weights() for each in (model, networks["vgg16"])
    )
    assert all(np.array_equal(one, other) for one, other in zip(loaded, saved))


@pytest.mark.parametrize("where", ["", "my.weights.h5"])
def test_a_missing_weights_file_is_named(tmp_path, where):
    missing = where or backbones.BACKBONES["vgg16"].imagenet_file
    with pytest.raises(
        FileNotFoundError,
        match=f"^There is no weights file '{missing}' for vgg16: check",
    ):
        build("vgg16", weights=str(tmp_path / where))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_refused(networks, tiny, tmp_path):
    networks["vgg16"].get_layer("backbone").save_weights(tmp_path / "vgg16.weights.h5")
    with pytest.raises(ValueError, match="^'vgg16.weights.h5' holds no tiny weights"):
        build(tiny, weights=str(tmp_path / "vgg16.weights.h5"))


@pytest.mark.parametrize("name", ["notes.h5", "notes.weights.h5", "notes.txt"])
def test_a_file_that_holds_no_weights_is_refused(tiny, tmp_path, name):
    (tmp_path / name).write_text("not weights")
    with pytest.raises(ValueError, match=f"^'{name}' holds no tiny weights"):
        build(tiny, weights=str(tmp_path / name))


# --- ImageNet weights ---


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and a Keras that has cached nothing; gives the folder of its cache."""
    monkeypatch.setattr(backbones, "reachable", lambda host: False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras/models"


@pytest.mark.parametrize("name", BOTH)
def test_without_imagenet_weights_one_sentence_says_what_to_do(offline, name):
    with pytest.raises(
        FileNotFoundError,
        match=f"^ImageNet weights for {name} .* '{name}_weights.*'cpu-scratch'.$",
    ):
        build(name, weights="imagenet")


def test_imagenet_weights_in_the_cache_need_no_network(offline):
    assert not backbones.imagenet_available("vgg16")
    offline.mkdir(parents=True)
    (offline / backbones.BACKBONES["vgg16"].imagenet_file).touch()
    assert backbones.imagenet_available("vgg16")
    assert not backbones.imagenet_available("resnet50")


def test_imagenet_weights_are_asked_of_keras_where_they_can_be_had(tiny, monkeypatch):
    asked = []

    def constructor(*, weights, **shape):
        asked.append(weights)
        return backbones.BACKBONES[tiny].constructor(weights=None, **shape)

    entry = backbones.Backbone(constructor, "any.h5", backbones.CAFFE, "late", 1e-3)
    monkeypatch.setitem(backbones.BACKBONES, "asking", entry)
    monkeypatch.setattr(
        backbones, "reachable", lambda host: host == "storage.googleapis.com"
    )
    build("asking", weights="imagenet")
    assert asked == ["imagenet"]


def test_a_folder_of_weights_in_the_environment_is_taken_and_said(
    quick, tmp_path, monkeypatch, capsys
):
    (tmp_path / backbones.BACKBONES["vgg16"].imagenet_file).touch()
    monkeypatch.setenv("BRAINTUMOR_WEIGHTS", str(tmp_path))
    imagenet = quick(weights="imagenet")
    assert models.with_available_weights(imagenet, "vgg16").weights == str(tmp_path)
    assert "BRAINTUMOR_WEIGHTS: " in capsys.readouterr().out
    assert str(tmp_path) not in capsys.readouterr().out
    # neither for other weights, nor for a network that it does not hold
    random = quick(weights="random")
    assert models.with_available_weights(random, "vgg16") is random
    monkeypatch.setattr(models, "imagenet_available", lambda name: True)
    assert models.with_available_weights(imagenet, "resnet50") is imagenet


def test_only_a_quick_run_falls_back_to_random_weights_and_says_so(
    offline, quick, capsys
):
    available = models.with_available_weights(quick(weights="imagenet"), "vgg16")
    assert (available.weights, available.recipe, available.head_epochs) == (
        "random",
        "scratch+quick",
        0,
    )
    assert "this quick run starts from random ones" in capsys.readouterr().out


def test_nothing_falls_back_behind_the_back_of_a_full_run(offline, quick, capsys):
    for settings in (
        settings_from("cpu", seed=0),
        settings_from("full", seed=0),
        quick(weights="random"),
    ):
        assert models.with_available_weights(settings, "vgg16") is settings
    assert capsys.readouterr().out == ""
