"""More than one machine: processes that share every batch must train the network that one process trains."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from braintumor import generators, models, training
from braintumor.__main__ import build_parser
from braintumor.app import classify
from braintumor.support import checkpoints, cluster
from braintumor.support.cluster import Share

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scaling import free_port

LAUNCH = Path(__file__).resolve().parents[1] / "launch"

# --- shares ---

processes = st.sampled_from([1, 2, 3, 4])
unhurried = hypothesis_settings(deadline=None)  # other work may slow a machine down


@unhurried
@given(rows=st.integers(0, 70), processes=processes, local=st.integers(1, 3))
def test_shares_are_equal_and_make_up_the_batch_but_for_what_devices_cannot_share(
    rows, processes, local
):
    devices = processes * local
    shares = [
        Share(process, processes, devices).of(np.arange(rows))
        for process in range(processes)
    ]
    assert {len(share) for share in shares} == {rows // devices * local}
    np.testing.assert_array_equal(
        np.concatenate(shares), np.arange(rows - rows % devices)
    )


def shared_sequences(scans, batch_size, processes, augmentation):
    draw = np.random.default_rng(1)
    images, labels = (
        draw.integers(0, 256, (scans, 16, 16), "uint8"),
        draw.integers(0, 4, scans),
    )
    how = dict(
        classes=4,
        batch_size=batch_size,
        seed=3,
        augmentation=generators.AUGMENTATIONS.get(augmentation),
    )
    alone = generators.ScanSequence(images, labels, **how)
    shares = [Share(process, processes, processes) for process in range(processes)]
    return alone, [
        cluster.SharedScanSequence(images, labels, share=share, **how)
        for share in shares
    ]


@unhurried
@given(
    batches=st.integers(1, 3),
    each=st.integers(1, 20),
    processes=processes,
    epoch=st.integers(0, 9),
    augmentation=st.sampled_from(["original", "looks", None]),
)
def test_processes_together_see_the_batches_that_one_sees(
    batches, each, processes, epoch, augmentation
):
    alone, several = shared_sequences(
        batches * each * processes, each * processes, processes, augmentation
    )
    for sequence in (alone, *several):
        sequence.epoch = epoch
        assert len(sequence) == batches
    for index, batch in enumerate(alone):
        for part, whole in zip(zip(*(sequence[index] for sequence in several)), batch):
            np.testing.assert_array_equal(np.concatenate(part), whole)


@unhurried
@given(scans=st.integers(4, 30), processes=processes)
def test_no_process_ever_waits_for_a_batch_that_another_does_not_have(scans, processes):
    _, several = shared_sequences(scans, 12, processes, "original")
    sizes = {tuple(len(images) for images, _ in sequence) for sequence in several}
    assert len(sizes) == 1 and min(*sizes, default=1) > 0
    assert 0 <= scans - processes * sum(*sizes) < processes


def test_a_batch_is_augmented_by_one_generator_scan_by_scan():
    alone, _ = shared_sequences(8, 8, 2, "looks")
    rows = generators.epoch_order(8, seed=3, epoch=0)
    draw, how = np.random.default_rng([3, 0, 1]), generators.AUGMENTATIONS["looks"]
    expected = [generators.augment(image, draw, **how) for image in alone.images[rows]]
    np.testing.assert_array_equal(
        alone[0][0][..., 0], np.float32(expected) / np.float32(255)
    )


def test_a_process_computes_only_its_own_share(monkeypatch):
    _, (one, _) = shared_sequences(24, 8, 2, "looks")
    computed = []
    apply = generators.RandomChange.apply

    def counted(self, image):
        computed.append(image)
        return apply(self, image)

    monkeypatch.setattr(generators.RandomChange, "apply", counted)
    assert len(one[0][0]) == len(computed) == 4


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(
        ValueError, match="3 devices cannot share 8 scans: set batch_size to a multiple"
    ):
        shared_sequences(24, 8, 3, None)
    with pytest.raises(ValueError, match="4 devices cannot share 3 scans of a subset"):
        shared_sequences(3, 8, 4, None)


@pytest.mark.parametrize("process", [0, 1])
def test_the_first_process_alone_gets_a_run_that_is_there_already(
    quick, monkeypatch, process
):
    """As the others would print and write the same scores."""
    stored = SimpleNamespace(evaluated_on_test_set=True)
    monkeypatch.setattr(cluster.runs, "stored_run", lambda settings, model: stored)
    monkeypatch.setattr(cluster.runs, "check_scans", lambda run, settings: None)
    run = cluster.train_and_evaluate(quick(), "vgg16", Share(process, 2, 2))
    assert run is (stored if process == 0 else None)


# --- processes that meet ---

# for ResNet50: else 1e-7 of a weight of such a small one is 0.1 of its loss, even on one process
SCRATCH = {"resnet50": "scratch+zero_init"}
MEET = """
import contextlib, sys
from pathlib import Path
folder, model, recipe, epochs, scans, *where = sys.argv[1:]
import conftest
from braintumor import backbones, config, models
from braintumor.support import cluster
backbones.BACKBONES["tiny"] = conftest.tiny_backbone()
by_hand = (where[0], *map(int, where[1:])) if len(where) == 3 else ()
meeting = cluster.join(*by_hand) if where else contextlib.nullcontext(cluster.Share())
settings = config.Settings(preset="sample", **conftest.QUICK | dict(recipe=recipe, epochs=int(epochs)))
with meeting as share:
    network = models.build_classifier(settings, model, classes=4)
    cluster.train(network, *conftest.made_up(share=share, scans=int(scans)), settings, Path(folder), share)
print("first" if share.is_first else "other")
"""


@pytest.fixture
def launch(tmp_path):
    """``launch(folder, model, epochs, processes)`` starts so many processes that train together."""
    pytest.importorskip("jax")
    started = []
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": paths,
    }

    def start(
        folder,
        model,
        epochs,
        processes,
        scans=20,
        last_model=None,
        slurm=False,
        hosts=(),
        recipe=None,
    ):
        recipe = recipe or SCRATCH.get(model, "scratch")
        where, port = [], free_port()
        address = "10.77.0.1" if hosts else "127.0.0.1"
        for process in range(processes):
            if processes > 1:
                where = (
                    ["slurm"] if slurm else [f"{address}:{port}", processes, process]
                )
            told = {
                "JOB_ID": 1,
                "STEP_NODELIST": "localhost",
                "STEP_NUM_NODES": 1,
                "NTASKS": processes,
            }
            told |= {"PROCID": process, "LOCALID": process}
            told = (
                {f"SLURM_{name}": str(value) for name, value in told.items()}
                if slurm
                else {}
            )
            name = last_model if last_model and process == processes - 1 else model
            on = ["ip", "netns", "exec", hosts[process]] if hosts else []
            what = map(str, [tmp_path / folder, name, recipe, epochs, scans, *where])
            command = [*on, sys.executable, "-c", MEET, *what]
            said = tmp_path / f"{folder}-{process}.txt"
            with said.open("w") as file:
                own = environment | told | {"JAX_COORDINATOR_PORT": str(port)}
                one = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, env=own
                )
            one.said = said
            started.append(one)
        return started[-processes:]

    yield start
    for one in started:
        one.kill()
        one.wait()


def finish(processes):
    for one in processes:
        assert one.wait(900) == 0, one.said.read_text()[-2000:]
    assert [one.said.read_text().split()[-1] for one in processes] == ["first"] + [
        "other"
    ] * (len(processes) - 1)


def assert_same_training(settings, model, one: Path, other: Path):
    """Losses within 1e-5, weights, batch norm's statistics and the optimizer's included, within 1e-4."""
    histories = [checkpoints.read_history(folder) for folder in (one, other)]
    columns = ["epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(
        *(history[columns] for history in histories), rtol=0, atol=1e-5
    )
    weights = []
    for folder in (one, other):
        network = models.build_classifier(settings, model, classes=4)
        training.compile_phase(
            network,
            training.training_phases(settings, model)[-1],
            settings.parsed_recipe,
            3,
        )
        network.load_weights(folder / checkpoints.CHECKPOINT.format(len(histories[0])))
        weights.append(
            [
                keras.ops.convert_to_numpy(weight)
                for weight in network.weights + network.optimizer.variables
            ]
        )
    for same, weight in zip(*weights):
        np.testing.assert_allclose(
            np.float64(weight), np.float64(same), rtol=0, atol=1e-4
        )


@pytest.mark.slow
def test_two_processes_that_slurm_starts_train_the_network_that_one_trains(
    launch, quick, tiny, tmp_path
):
    together, alone = (
        launch("together", tiny, 2, 2, slurm=True),
        launch("alone", tiny, 2, 1),
    )
    finish(together), finish(alone)
    assert_same_training(
        quick(recipe="scratch"), tiny, tmp_path / "together", tmp_path / "alone"
    )


@pytest.fixture
def hosts():
    """Two network namespaces joined by a cable: as two machines, neither reaches the other's loopback."""
    names = [f"braintumor-{os.getpid()}-{number}" for number in (1, 2)]
    made = [
        subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode
        for name in names
        if shutil.which("ip")
    ]
    try:
        if made != [0, 0]:
            pytest.skip("no right, or no command, to make network namespaces")
        commands = [
            f"ip -n {names[0]} link add eth0 type veth peer name eth0 netns {names[1]}"
        ]
        for number, name in enumerate(names, start=1):
            known_to = Path(
                "/etc/netns", name, "hosts"
            )  # there, and only there, this is /etc/hosts
            known_to.parent.mkdir(parents=True)
            known_to.write_text(f"10.77.0.{number} {socket.gethostname()}\n")
            steps = (
                "link set lo up",
                f"addr add 10.77.0.{number}/24 dev eth0",
                "link set eth0 up",
            )
            commands += [f"ip -n {name} {step}" for step in steps]
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield names
    finally:
        for name, failed in zip(names, made):
            if not failed:
                shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
                subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.slow
def test_two_hosts_train_the_network_that_one_trains(
    launch, hosts, quick, tiny, tmp_path
):
    (
        finish(launch("together", tiny, 2, 2, hosts=hosts)),
        finish(launch("alone", tiny, 2, 1)),
    )
    assert_same_training(
        quick(recipe="scratch"), tiny, tmp_path / "together", tmp_path / "alone"
    )


@pytest.mark.slow
def test_two_processes_train_a_head_and_then_late_layers_as_one_does(
    launch, quick, tiny, tmp_path
):
    together, alone = (launch(str(n), tiny, 3, n, recipe="transfer") for n in (2, 1))
    finish(together), finish(alone)
    assert_same_training(quick(), tiny, tmp_path / "2", tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vgg16", "resnet50"])
def test_two_and_four_processes_train_what_one_trains(launch, quick, model, tmp_path):
    for processes in (1, 2, 4):
        finish(launch(str(processes), model, 2, processes))
        settings = quick(recipe=SCRATCH.get(model, "scratch"))
        assert_same_training(settings, model, tmp_path / str(processes), tmp_path / "1")


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def assert_all_end(processes):
    """Within a minute, with words."""
    end = time.monotonic() + 60
    for one in processes:
        assert one.wait(end - time.monotonic()) != 0
        wait_for(
            lambda said=one.said: said.read_text().endswith(f"{cluster.ENDED}\n"),
            seconds=5,
        )


@pytest.mark.slow
def test_when_a_process_dies_the_others_end_and_any_number_goes_on(
    launch, quick, tiny, tmp_path
):
    folder = tmp_path / "together"
    for processes, victim, how in ((2, 1, signal.SIGKILL), (4, 0, signal.SIGTERM)):
        together, done = (
            launch("together", tiny, 40, processes),
            len(checkpoints.read_history(folder)),
        )
        wait_for(lambda done=done: len(checkpoints.read_history(folder)) > done + 2)
        together[victim].send_signal(how)
        assert_all_end(together)
        assert done + 2 < len(checkpoints.read_history(folder)) < 40
    finish(launch("together", tiny, 40, 1))
    finish(launch("alone", tiny, 40, 1))
    assert_same_training(quick(recipe="scratch"), tiny, folder, tmp_path / "alone")


@pytest.mark.slow
def test_when_a_process_fails_the_others_end_too(launch, tiny):
    first, last = launch("together", tiny, 2, 2, last_model="alexnet")
    assert_all_end([first, last])
    assert "There is no backbone 'alexnet'" in last.said.read_text()


@pytest.mark.slow
def test_a_number_of_processes_that_makes_fewer_steps_goes_on_as_well(
    launch, tiny, tmp_path
):
    for epochs, processes in ((2, 1), (4, 4), (5, 2)):
        finish(
            launch("together", tiny, epochs, processes, scans=17)
        )  # 3 steps an epoch for one, else 2
        rates = checkpoints.read_history(tmp_path / "together")["learning_rate"]
        assert len(rates) == epochs and rates.iloc[-1] == 0


# --- the command ---


def test_without_jax_the_command_says_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="set KERAS_BACKEND=jax"), cluster.join():
        pass


def test_where_there_is_no_cluster_the_command_says_what_to_do(tmp_path):
    pytest.importorskip("jax")
    command = [
        sys.executable,
        "-m",
        "braintumor",
        "train",
        "--model",
        "vgg16",
        "--cluster",
    ]
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "The processes cannot meet (coordinator_address should be defined.): start them under SLURM"
    )


# --- launch files ---


def command_in(words: list[str]) -> list[str]:
    """The options that come after ``braintumor`` in a command."""
    return words[words.index("braintumor") + 1 :]


def test_the_slurm_file_is_sound_and_its_command_is_one_of_ours():
    script = LAUNCH / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text().replace("\\\n", "")
    (line,) = [
        line
        for line in text.splitlines()
        if "srun" in line and not line.startswith("#")
    ]
    options = build_parser().parse_args(
        command_in(
            shlex.split(line.replace("${MODEL:-resnet50}", "resnet50").strip("; then"))
        )
    )
    nodes, tasks, gpus = (
        int(re.search(rf"--{name}=(\d+)", text)[1])
        for name in ("nodes", "ntasks-per-node", "gpus-per-node")
    )
    assert options.cluster and options.batch_size % (nodes * gpus) == 0
    assert tasks == 1 and re.search(r"JAX_LOCAL_DEVICE_IDS=(\S+)", text)[1] == ",".join(
        map(str, range(gpus))
    )
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, script], check=True)


def test_the_kubernetes_file_is_sound_and_its_command_is_one_of_ours():
    yaml = pytest.importorskip("yaml")
    *others, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = build_parser().parse_args(command_in(container["command"]))
    gpus = (
        job["spec"]["completions"] * container["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert options.cluster and options.batch_size % gpus == 0
    assert (
        job["spec"]["completionMode"] == "Indexed"
        and job["spec"]["parallelism"] == job["spec"]["completions"]
    )
    assert {"name": "KERAS_BACKEND", "value": "jax"} in container["env"]
    (service,) = [other for other in others if other["kind"] == "Service"]
    assert service["spec"]["selector"] == {
        "job-name": job["metadata"]["name"]
    }  # what JAX looks for
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["serviceAccountName"] in [
        other["metadata"]["name"]
        for other in others
        if other["kind"] == "ServiceAccount"
    ]


def test_the_kubernetes_file_follows_the_schema():
    validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    for part in pytest.importorskip("yaml").safe_load_all(
        (LAUNCH / "kubernetes.yaml").read_text()
    ):
        validate.validate(part, "1.31", strict=True)


def test_an_archive_is_answered_by_ray_as_by_one_process(trained, tmp_path):
    pytest.importorskip("ray", reason="pip install 'ray[data]'")
    root, file = trained.root, trained.file
    command = [
        sys.executable,
        LAUNCH / "ray_archive.py",
        root,
        file,
        tmp_path / "answers",
        "2",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    subprocess.run(command, check=True, env=environment)
    found = pd.read_parquet(tmp_path / "answers").sort_values("file", ignore_index=True)
    expected = classify.classify(root, classify.load_classifier(file)).sort_values(
        "file", ignore_index=True
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-5)
