"""Draw a synthetic brain MRI data set, for tests and for src/braintumor/phantoms.zip.

`python tools/phantoms.py` writes that archive, which stands in where no scans can be
downloaded, anew.

A head is made of ellipsoids (Shepp, Logan: IEEE Trans. Nucl. Sci. 21, 1974) with a
cortex that is folded along a gyroid, and is cut in planes. Its intensities are those of
T1 images with contrast agent and fat suppression. Coordinates are in cm from between
the thalami: x to the right of the image, y forward, z up.
"""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from braintumor import dataset

import cv2
import numpy as np
import pandas as pd

LABELS = ("glioma", "meningioma", "no_tumor", "pituitary")
VIEWS = ("sagittal", "coronal", "axial")  # planes across x, y, z
SLICES = 4  # of each patient
MINIMUM_SCANS = 48  # three patients a class, one of them for testing
JPEG_QUALITY = 80

INTENSITIES = {
    "air": 0.02,
    "bone": 0.06,
    "fluid": 0.12,
    "edema": 0.26,
    "gray": 0.33,
    "white": 0.42,
    "tumor": 0.95,
    "fat": 0.5,
}

Box = Sequence[float]  # x, y, width, height in pixels


# --- anatomy ---


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid whose axes are those of the head.

    Attributes:
        center: x, y, z (cm).
        radii: Along x, y, z (cm).
    """

    center: np.ndarray
    radii: np.ndarray

    def normalize(self, points: np.ndarray) -> np.ndarray:
        """Move the center to 0 and scale the radii to 1.

        Args:
            points: Coordinates (3, height, width) in cm.

        Returns:
            Coordinates (3, height, width) of the unit sphere.
        """
        center = self.center[:, np.newaxis, np.newaxis]
        radii = self.radii[:, np.newaxis, np.newaxis]
        return (points - center) / radii

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Measure how far points are from the center, in radii.

        Args:
            points: Coordinates (3, height, width) in cm.

        Returns:
            Distances (height, width): 0 in the center, 1 on the surface.
        """
        squares = np.square(self.normalize(points))
        return np.sqrt(squares.sum(axis=0))


@dataclass(frozen=True)
class TumorKind:
    """Where tumors of a class grow, and what they look like.

    Attributes:
        site: Their centers lie on the upper half of this ellipsoid.
        radius: Smallest and largest radius (cm).
        roughness: How much the surface deviates from a sphere.
        least_depth: They grow only this far below the dura (cm); negative: above it.
    """

    site: Ellipsoid
    radius: tuple[float, float]
    roughness: float
    least_depth: float


class Layer(NamedTuple):
    """A tissue, and the pixels (bool, height, width) that it covers."""

    tissue: str
    mask: np.ndarray


class Slice(NamedTuple):
    """A scan (uint8, size, size), and the box of its tumor or None."""

    image: np.ndarray
    box: Box | None


# Ellipsoids in the order of painting: tissue; center |x|, y, z; radii along x, y, z.
# Each is on both sides of the head.
FACE = """
    fat    0     2.6  -4.4   6.4  6.7   8
    fat    0    -1.6  -10    6    5.8  10
    fat    0     9.2  -4.7   1.5  1.6   1.8
    gray   0     2.4  -4.4   6    6.3   7.4
    gray   0    -1.4  -10    5.5  5.1   9.5
    fat    3.1   6.6  -3.1   1.9  2.5   1.6
    fluid  3.1   7.5  -3.1   1.2  1.2   1.2
    air    0     6.2  -5     1.4  3     2
"""
BRAIN = """
    fluid  0    -5    -4     5.2  3.75  2.6
    gray   2    -4.9  -4     3.1  3.3   2.3
    fluid  0     0.3  -3.4   1.9  2.5   2.5
    white  0    -0.2   1.2   1.3  4     2
    fluid  0.85 -0.2   1     0.8  3.1   1.5
    fluid  2.3  -3.6   0.6   0.6  1.7   0.9
    gray   2     0.3   0.3   1.3  2.2   1.3
    white  0    -1.2  -4     1.3  1.2   4
"""
SKULL_CAVITY = Ellipsoid(
    center=np.array([0, -0.3, 0.6], np.float32),
    radii=np.array([6.8, 8.7, 6.8], np.float32),
)
TEMPORAL_FOSSA = Ellipsoid(
    center=np.array([3.9, 1.6, -2.1], np.float32),
    radii=np.array([2.5, 3.4, 2.3], np.float32),
)
# the floor of the skull from back to front: its height z at some y
FLOOR_Y = (-9, -3.4, -1, 1.6, 2.8, 3.2, 4, 9)
FLOOR_Z = (-5.5, -7, -6, -3, -3.3, -2.4, -2, -1.6)

GLIOMA = TumorKind(  # in the white matter
    site=Ellipsoid(np.array([0, 0, 1.2]), np.array([3.2, 4.5, 2])),
    radius=(1.5, 2.2),
    roughness=0.16,
    least_depth=0.25,
)
MENINGIOMA = TumorKind(  # on the dura
    site=Ellipsoid(np.array([0, -0.3, 0.6]), np.array([6.3, 8.2, 6.3])),
    radius=(1.3, 1.9),
    roughness=0.05,
    least_depth=-0.1,
)
PITUITARY_TUMOR = TumorKind(  # in the sella turcica
    site=Ellipsoid(np.array([0, 2.35, -2.7]), np.zeros(3)),
    radius=(0.95, 1.3),
    roughness=0.05,
    least_depth=-9,
)
TUMORS = {"glioma": GLIOMA, "meningioma": MENINGIOMA, "pituitary": PITUITARY_TUMOR}


# --- a data set ---


@dataclass(frozen=True)
class Patient:
    """What is decided of a patient before drawing.

    Attributes:
        number: 1 to the number of patients; names the files.
        label: One of ``LABELS``.
        view: One of ``VIEWS``.
        split: The data set's folder: Training or Testing.
    """

    number: int
    label: str
    view: str
    split: str


def write_phantoms(root: Path, scans: int, seed: int, size: int = 256) -> pd.DataFrame:
    """Write JPEG files in folders like those of the data set, all of them or none.

    A patient has four slices in one view, and is in Training (four fifths of the
    patients) or in Testing. Classes and views are balanced. A seed fixes every byte.

    Args:
        root: The folder to make.
        scans: How many files.
        seed: Of everything random.
        size: Width and height of a scan (px).

    Returns:
        One row a scan, sorted by path, as written to ``phantoms.csv`` in the folder:
        path, sha256, split, label, group, box_x, box_y, box_w, box_h (px, NaN without a
        tumor), label_conflict.

    Raises:
        ValueError: Too few scans for every class in both folders.
        FileExistsError: The folder exists.
    """
    root = Path(root)
    if scans < MINIMUM_SCANS:
        raise ValueError(
            f"{scans} phantoms do not fill both folders in every class; "
            f"make at least {MINIMUM_SCANS}."
        )
    if root.exists():
        raise FileExistsError(
            f"'{root}' exists already: "
            "remove it or name another folder for the phantoms."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".phantoms-", dir=root.parent) as temporary:
        staging = Path(temporary, "complete")
        rows: list[dict] = []
        for patient in _plan_patients(scans, seed):
            rng = np.random.default_rng([seed, patient.number])
            slices = draw_patient(patient.label, patient.view, rng, size)
            still_wanted = scans - len(rows)
            for number, scan in enumerate(slices[:still_wanted], start=1):
                rows.append(_write_scan(staging, patient, number, scan))
        table = pd.DataFrame(rows).sort_values("path", ignore_index=True)
        table.to_csv(staging / dataset.SYNTHETIC_TABLE, index=False)
        staging.rename(root)
    return table


def _plan_patients(scans: int, seed: int) -> list[Patient]:
    """Give every patient a number, a class, a view and a folder."""
    count = math.ceil(scans / SLICES)
    testing_patients = round(count / len(LABELS) / 5)  # of each class
    # shuffled, so that the name of a file does not give its class away
    numbers = np.random.default_rng(seed).permutation(count) + 1
    patients = []
    for index, number in enumerate(numbers):
        place_in_class, label_index = divmod(index, len(LABELS))
        view = VIEWS[place_in_class % len(VIEWS)]
        split = "Testing" if place_in_class < testing_patients else "Training"
        patients.append(Patient(int(number), LABELS[label_index], view, split))
    return patients


def _write_scan(root: Path, patient: Patient, number: int, scan: Slice) -> dict:
    """Write one scan of a patient; returns its row of the table."""
    folder = f"{patient.label.removesuffix('_tumor')}_tumor"
    path = Path(patient.split, folder, f"p{patient.number:04d}_{number}.jpg")
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", scan.image, options)
    content = encoded.tobytes()
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    x, y, width, height = scan.box or [np.nan] * 4
    return {
        "path": path.as_posix(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "split": patient.split.lower(),
        "label": patient.label,
        "group": f"phantom-{patient.number:04d}",
        "box_x": x,
        "box_y": y,
        "box_w": width,
        "box_h": height,
        "label_conflict": False,
    }


# --- a patient ---


def draw_patient(
    label: str, view: str, rng: np.random.Generator, size: int = 256
) -> list[Slice]:
    """Draw the slices of a new patient.

    Args:
        label: One of ``LABELS``.
        view: One of ``VIEWS``.
        rng: Of everything random in the patient and in the scanner.
        size: Width and height of a scan (px).

    Returns:
        Four slices through the tumor.
    """
    axis = VIEWS.index(view)
    pixel_size = rng.uniform(21 / size, 24 / size)  # cm
    noise = rng.uniform(0.01, 0.035)
    gamma = rng.uniform(0.9, 1.3)
    head_size = rng.uniform(0.94, 1.06, (3, 1, 1))
    phases = rng.uniform(0, 6.3, (2, 3, 1, 1))  # of waves that bend shapes
    phases = phases.astype(np.float32)
    intensities = {}
    for tissue, intensity in INTENSITIES.items():
        intensities[tissue] = intensity * rng.uniform(0.9, 1.1)
    kind = label
    if label == "no_tumor":  # cut as for a random class: the position tells nothing
        kind = rng.choice(list(TUMORS))
    tumor = _place_tumor(TUMORS[kind], axis, rng)

    plane = _plane(view, size, pixel_size)
    slices = []
    for step in np.linspace(-0.4, 0.4, SLICES):  # in radii of the tumor
        across = (tumor.center[axis] + step * tumor.radii[axis]) * head_size[axis]
        points = np.insert(plane, axis, across, axis=0)
        motion = rng.normal(0, 0.08, (3, 1, 1))
        points = ((points + motion) / head_size).astype(np.float32)
        if view == "sagittal":  # a slice is too thick to show the falx alone
            from_falx = np.maximum(np.abs(points[0]), 0.25)
            points[0] = np.copysign(from_falx, points[0])
        points += 0.12 * np.sin(0.6 * _cycle_axes(points) + phases[0])

        depth = _depth_below_dura(_mirror(points))
        layers = _head_layers(points, depth, phases)
        box = None
        if label in TUMORS:
            mask, tumor_layers = _tumor_layers(label, tumor, points, depth, phases)
            layers = layers + tumor_layers
            box = cv2.boundingRect(mask.astype(np.uint8))
        painted = _paint(layers, intensities)
        slices.append(Slice(_scan(painted, noise, gamma, rng), box))
    return slices


def _place_tumor(kind: TumorKind, axis: int, rng: np.random.Generator) -> Ellipsoid:
    """Choose center and radius of a tumor that is cut across an axis."""
    direction = rng.normal(size=3)
    direction[axis] *= 0.3  # no slice at the rim of the head
    direction *= 1 / np.linalg.norm(direction)
    direction[2] = abs(direction[2])
    center = kind.site.center + kind.site.radii * direction
    radius = rng.uniform(*kind.radius)
    return Ellipsoid(center, np.full(3, radius))


def _plane(view: str, size: int, pixel_size: float) -> np.ndarray:
    """Coordinates (cm) in the plane of a view: (2, size, size)."""
    from_center = np.mgrid[:size, :size] - (size - 1) / 2
    down, right = from_center * pixel_size
    if view == "sagittal":  # y, z
        return np.stack([0.6 - right, -1.6 - down])
    if view == "coronal":  # x, z
        return np.stack([right, -1.6 - down])
    return np.stack([right, -down])  # x, y


def _paint(layers: list[Layer], intensities: dict[str, float]) -> np.ndarray:
    """Paint layers over each other: float32 (size, size)."""
    image = np.full(layers[0].mask.shape, intensities["air"], np.float32)
    for layer in layers:
        image[layer.mask] = intensities[layer.tissue]
    return image


def _scan(
    painted: np.ndarray, noise: float, gamma: float, rng: np.random.Generator
) -> np.ndarray:
    """Blur, brightness that varies with the coil, and noise: uint8 (size, size)."""
    size = len(painted)
    blurred = cv2.GaussianBlur(painted, (0, 0), size / 340)
    image = blurred.astype(np.float64) ** gamma
    coil = rng.uniform(0.75, 1.2, (3, 3))
    image = image * cv2.resize(coil, (size, size), interpolation=cv2.INTER_CUBIC)
    # Rician: Gudbjartsson and Patz 1995
    real, imaginary = rng.normal(0, noise, (2, size, size))
    magnitude = np.hypot(image + real, imaginary)
    return np.clip(255 * magnitude, 0, 255).astype(np.uint8)


# --- tissues; points are float32 (3, size, size) ---


def _cycle_axes(points: np.ndarray) -> np.ndarray:
    """y, z, x in place of x, y, z."""
    return points[[1, 2, 0]]


def _mirror(points: np.ndarray) -> np.ndarray:
    """|x|, y, z: the head is the same on both sides."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def _vault(mirrored: np.ndarray) -> np.ndarray:
    """How far points lie below the vault of the skull (cm), roughly."""
    return 7 - 7 * SKULL_CAVITY.distance(mirrored)


def _depth_below_dura(mirrored: np.ndarray) -> np.ndarray:
    """How far points lie below the dura (cm), roughly; negative outside."""
    x, y, z = mirrored
    floor = np.interp(y, FLOOR_Y, FLOOR_Z).astype(np.float32)
    cavity = np.minimum(_vault(mirrored), z - floor)
    temporal_fossa = 2.3 - 2.3 * TEMPORAL_FOSSA.distance(mirrored)
    from_canal_wall = 0.9 - np.hypot(x, y + 2.2)
    spinal_canal = np.minimum(from_canal_wall, -5 - z)
    return np.maximum.reduce([cavity, temporal_fossa, spinal_canal])


def _ellipsoid_layers(table: str, mirrored: np.ndarray) -> list[Layer]:
    """The layers of ``FACE`` or ``BRAIN``."""
    layers = []
    for line in table.strip().splitlines():
        tissue, *numbers = line.split()
        values = np.array([float(number) for number in numbers], np.float32)
        ellipsoid = Ellipsoid(values[:3], values[3:])
        layers.append(Layer(tissue, ellipsoid.distance(mirrored) < 1))
    return layers


def _head_layers(
    points: np.ndarray, depth: np.ndarray, phases: np.ndarray
) -> list[Layer]:
    """A head without a tumor, in the order of painting."""
    mirrored = _mirror(points)
    inside = depth > 0
    scalp = Layer("fat", _vault(mirrored) > -1.25)
    skull = Layer("bone", depth > -0.65)
    fluid = Layer("fluid", inside)
    layers = [scalp, *_ellipsoid_layers(FACE, mirrored), skull, fluid]

    falx = Layer("fat", mirrored[0] < 0.06)
    cortex = _cortex_layers(points, depth, phases)
    for layer in [falx, *cortex, *_ellipsoid_layers(BRAIN, mirrored)]:
        layers.append(Layer(layer.tissue, layer.mask & inside))
    return layers


def _cortex_layers(
    points: np.ndarray, depth: np.ndarray, phases: np.ndarray
) -> list[Layer]:
    """White matter, gray matter and sulci."""
    x, _, z = _mirror(points)
    below_surface = np.minimum.reduce([depth - 0.2, x - 0.1, z + 7])
    cerebrum = below_surface > 0

    # a gyroid in coordinates whose folds run inward
    radial = SKULL_CAVITY.normalize(points)
    squares = np.square(radial).sum(axis=0)
    stretched = 6.5 * radial / (squares + 0.01) ** 0.4
    bend = 0.6 * np.sin(_cycle_axes(points) + phases[1])
    angles = 2.4 * (stretched + bend)
    gyroid = np.sin(angles) * np.cos(_cycle_axes(angles))
    fold = np.abs(gyroid.sum(axis=0))

    near_fold = fold < 0.75 - 0.3 * below_surface
    gray = (below_surface < 0.3) | near_fold
    sulci = fold < 0.3 - 0.18 * below_surface
    return [
        Layer("white", cerebrum),
        Layer("gray", cerebrum & gray),
        Layer("fluid", cerebrum & sulci),
    ]


def _tumor_layers(
    label: str,
    tumor: Ellipsoid,
    points: np.ndarray,
    depth: np.ndarray,
    phases: np.ndarray,
) -> tuple[np.ndarray, list[Layer]]:
    """The pixels of a tumor (without edema or dural tail), and what is painted."""
    kind = TUMORS[label]
    bend = 0.9 * np.sin(2.5 * _cycle_axes(points) + phases[0])
    waves = np.sin(2.2 * points + bend + phases[1])
    distance = tumor.distance(points)
    rough_distance = distance * (1 + kind.roughness * waves.sum(axis=0))
    mask = (rough_distance < 1) & (depth > kind.least_depth)
    if label == "glioma":
        reach = distance * (1 + 0.3 * waves[0])
        edema = (reach < 1.75) & (depth > 0.25)
        core = mask & (rough_distance < 0.78 + 0.16 * waves[1])
        layers = [Layer("edema", edema), Layer("tumor", mask), Layer("fluid", core)]
    elif label == "meningioma":
        along_dura = np.abs(depth - 0.05) < 0.12
        dural_tail = (rough_distance < 1.7) & along_dura
        layers = [Layer("tumor", mask | dural_tail)]
    else:
        layers = [Layer("tumor", mask)]
    return mask, layers


def main() -> None:
    """Write the archive that comes with the package."""
    archive = dataset.SYNTHETIC_ARCHIVE.with_suffix("")  # make_archive adds .zip
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder, "phantoms"), scans=400, seed=0, size=128)
        shutil.make_archive(str(archive), "zip", folder, "phantoms")


if __name__ == "__main__":
    main()
