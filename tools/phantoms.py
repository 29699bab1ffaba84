"""Draw a synthetic brain MR data set: for the tests, and for src/braintumor/phantoms.zip, which stands in for scans.

`python tools/phantoms.py` writes that archive anew.

A head of ellipsoids (Shepp, Logan: IEEE Trans. Nucl. Sci. 21, 1974) with a cortex folded along a gyroid, cut in planes,
grey as contrast-enhanced, fat-suppressed T1 images. In cm from between the thalami: x to image right, y forwards, z up.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from braintumor import dataset

import cv2
import numpy as np
import pandas as pd

LABELS = ("glioma", "meningioma", "no_tumor", "pituitary")
VIEWS = ("sagittal", "coronal", "axial")  # planes across x, y, z
SLICES, MINIMUM_SCANS = (
    4,
    48,
)  # at least three patients a class, one of them for testing
GREY = dict(
    air=0.02,
    bone=0.06,
    fluid=0.12,
    oedema=0.26,
    grey=0.33,
    white=0.42,
    tumour=0.95,
    fat=0.5,
)
# ellipsoids in the order of painting: tissue, centre |x| y z, radii x y z
FACE = """fat 0 2.6 -4.4 6.4 6.7 8, fat 0 -1.6 -10 6 5.8 10, fat 0 9.2 -4.7 1.5 1.6 1.8, grey 0 2.4 -4.4 6 6.3 7.4,
    grey 0 -1.4 -10 5.5 5.1 9.5, fat 3.1 6.6 -3.1 1.9 2.5 1.6, fluid 3.1 7.5 -3.1 1.2 1.2 1.2, air 0 6.2 -5 1.4 3 2"""
BRAIN = """fluid 0 -5 -4 5.2 3.75 2.6, grey 2 -4.9 -4 3.1 3.3 2.3, fluid 0 .3 -3.4 1.9 2.5 2.5, white 0 -.2 1.2 1.3 4 2,
    fluid .85 -.2 1 .8 3.1 1.5, fluid 2.3 -3.6 .6 .6 1.7 .9, grey 2 .3 .3 1.3 2.2 1.3, white 0 -1.2 -4 1.3 1.2 4"""
VAULT = np.float32([0, -0.3, 0.6, 6.8, 8.7, 6.8])[
    :, None, None
]  # the cavity of the skull: centre, radii
TUMOURS = {  # centres lie on the upper half of an ellipsoid (centre, radii); range of radii, roughness, least depth
    "glioma": (
        (0, 0, 1.2),
        (3.2, 4.5, 2),
        (1.5, 2.2),
        0.16,
        0.25,
    ),  # in the white matter
    "meningioma": (
        (0, -0.3, 0.6),
        (6.3, 8.2, 6.3),
        (1.3, 1.9),
        0.05,
        -0.1,
    ),  # on the dura
    "pituitary": ((0, 2.35, -2.7), (0, 0, 0), (0.95, 1.3), 0.05, -9),  # in the sella
}


def write_phantoms(root: Path, scans: int, seed: int, size: int = 256) -> pd.DataFrame:
    """Write ``scans`` JPEG files, ``size`` px square, in Kaggle folders, all or none; return (and write) a table.

    A patient has four slices in one view, and is in Training (four fifths) or Testing; classes and views are balanced.
    Boxes: pixels, NaN without a tumour. A seed fixes every byte. Raises FileExistsError, ValueError for too few scans.
    """
    root, patients, rows = Path(root), -(-scans // SLICES), []
    if scans < MINIMUM_SCANS:
        raise ValueError(
            f"{scans} phantoms do not fill both folders in every class; make at least {MINIMUM_SCANS}."
        )
    if root.exists():
        raise FileExistsError(
            f"'{root}' exists already: remove it or name another folder for the phantoms."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".phantoms-", dir=root.parent) as temporary:
        staging = Path(temporary, "complete")
        for index, number in enumerate(
            np.random.default_rng(seed).permutation(patients) + 1
        ):  # names tell no order
            turn, label = index // len(LABELS), LABELS[index % len(LABELS)]
            split = (
                "Testing" if turn < round(patients / len(LABELS) / 5) else "Training"
            )
            drawn = draw_patient(
                label,
                VIEWS[turn % len(VIEWS)],
                np.random.default_rng([seed, number]),
                size,
            )
            for scan, (image, box) in enumerate(
                drawn[: scans - SLICES * index], start=1
            ):
                path = Path(
                    split,
                    label.removesuffix("_tumor") + "_tumor",
                    f"p{number:04d}_{scan}.jpg",
                )
                data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[
                    1
                ].tobytes()
                (staging / path).parent.mkdir(parents=True, exist_ok=True)
                (staging / path).write_bytes(data)
                facts = (
                    path.as_posix(),
                    hashlib.sha256(data).hexdigest(),
                    split.lower(),
                    label,
                    f"phantom-{number:04d}",
                )
                rows.append((*facts, *(box or [np.nan] * 4)))
        columns = [
            "path",
            "sha256",
            "split",
            "label",
            "group",
            "box_x",
            "box_y",
            "box_w",
            "box_h",
        ]
        table = pd.DataFrame(sorted(rows), columns=columns).assign(label_conflict=False)
        table.to_csv(staging / dataset.SYNTHETIC_TABLE, index=False)
        staging.rename(root)
    return table


def draw_patient(
    label: str, view: str, rng: np.random.Generator, size: int = 256
) -> list:
    """The four slices of a new patient: [(image uint8 (size, size), box (x, y, width, height) in pixels or None)]."""
    pixel, noise, gamma = rng.uniform((21 / size, 0.01, 0.9), (24 / size, 0.035, 1.3))
    scale, phase = (
        rng.uniform(0.94, 1.06, (3, 1, 1)),
        np.float32(rng.uniform(0, 6.3, (2, 3, 1, 1))),
    )
    grey = {tissue: value * rng.uniform(0.9, 1.1) for tissue, value in GREY.items()}
    axis, kind = (
        VIEWS.index(view),
        rng.choice(list(TUMOURS)) if label == "no_tumor" else label,
    )
    direction = rng.normal(size=3) * np.where(
        np.arange(3) == axis, 0.3, 1
    )  # no slice at the rim of the head
    direction *= (1, 1, np.sign(direction[2])) / np.linalg.norm(direction)
    middle, reach, radii, *_ = TUMOURS[
        kind
    ]  # no tumour: cut as for a random class, so position tells nothing
    centre, radius, scans = middle + reach * direction, rng.uniform(*radii), []
    down, right = (np.mgrid[:size, :size] - (size - 1) / 2) * pixel
    plane = [(0.6 - right, -1.6 - down), (right, -1.6 - down), (right, -down)][axis]
    for step in np.linspace(-0.4, 0.4, SLICES):
        points = np.insert(
            plane, axis, (centre[axis] + step * radius) * scale[axis], axis=0
        )
        points = np.float32(
            (points + rng.normal(0, 0.08, (3, 1, 1))) / scale
        )  # the head moves a little
        points[0] = np.copysign(
            np.maximum(np.abs(points[0]), 0.25 * (axis == 0)), points[0]
        )  # thick slices: no falx
        points += 0.12 * np.sin(0.6 * points[[1, 2, 0]] + phase[0])
        layers, box = _draw(label, points, (*centre, radius, radius, radius), phase)
        tissues, masks = zip(*reversed(layers))
        image = np.float32(
            np.select(masks, [grey[tissue] for tissue in tissues], grey["air"])
        )
        image = cv2.GaussianBlur(image, (0, 0), size / 340) ** gamma
        image *= cv2.resize(
            rng.uniform(0.75, 1.2, (3, 3)), (size, size), interpolation=cv2.INTER_CUBIC
        )  # coil
        real, imaginary = rng.normal(
            0, noise, (2, size, size)
        )  # Rician noise: Gudbjartsson and Patz 1995
        scans.append(
            (np.uint8(np.clip(255 * np.hypot(image + real, imaginary), 0, 255)), box)
        )
    return scans


def _radius(points, shape):
    """The distance from the centre of an ellipsoid (centre and radii in ``shape``): 1 on its surface."""
    return np.sqrt(
        sum(
            ((p - c) / r) ** 2
            for p, c, r in zip(points, shape[:3], shape[3:], strict=True)
        )
    )


def _ellipsoids(points, table):
    return [
        (tissue, _radius(points, np.float32(shape)) < 1)
        for tissue, *shape in map(str.split, table.split(","))
    ]


def _draw(label, points, ball, phase):
    """[(tissue, mask)] in the order of painting, and the box of the tumour without its oedema or dural tail."""
    half = x, y, z = np.abs(points[0]), points[1], points[2]
    vault, temporal = (
        7 - 7 * _radius(half, VAULT),
        2.3 - 2.3 * _radius(half, (3.9, 1.6, -2.1, 2.5, 3.4, 2.3)),
    )
    base = z - np.float32(
        np.interp(
            y,
            (-9, -3.4, -1, 1.6, 2.8, 3.2, 4, 9),
            (-5.5, -7, -6, -3, -3.3, -2.4, -2, -1.6),
        )
    )
    canal = np.minimum(0.9 - np.hypot(x, y + 2.2), -5 - z)
    depth = np.maximum.reduce(
        [np.minimum(vault, base), temporal, canal]
    )  # below the dura, negative outside
    inside, cortex = depth > 0, np.minimum.reduce([depth - 0.2, x - 0.1, z + 7])
    radial = (points - VAULT[:3]) / VAULT[3:]  # folds run inwards
    radial = 6.5 * radial / (np.square(radial).sum(0) + 0.01) ** 0.4 + 0.6 * np.sin(
        points[[1, 2, 0]] + phase[1]
    )
    fold = np.abs((np.sin(2.4 * radial) * np.cos(2.4 * radial[[1, 2, 0]])).sum(0))
    grey, sulci = (
        (cortex < 0.3) | (fold < 0.75 - 0.3 * cortex),
        fold < 0.3 - 0.18 * cortex,
    )
    brain = [
        ("white", cortex > 0),
        ("grey", (cortex > 0) & grey),
        ("fluid", (cortex > 0) & sulci),
    ]
    brain = [
        (tissue, mask & inside)
        for tissue, mask in [("fat", x < 0.06), *brain, *_ellipsoids(half, BRAIN)]
    ]
    head = [
        ("fat", vault > -1.25),
        *_ellipsoids(half, FACE),
        ("bone", depth > -0.65),
        ("fluid", inside),
        *brain,
    ]
    if label not in TUMOURS:
        return head, None
    (*_, roughness, least), away = TUMOURS[label], _radius(points, ball)
    waves = np.sin(
        2.2 * points + 0.9 * np.sin(2.5 * points[[1, 2, 0]] + phase[0]) + phase[1]
    )
    level = away * (1 + roughness * waves.sum(0))
    mask, tail = (
        (level < 1) & (depth > least),
        (level < 1.7) & (np.abs(depth - 0.05) < 0.12),
    )
    oedema, core = (
        (away * (1 + 0.3 * waves[0]) < 1.75) & (depth > 0.25),
        mask & (level < 0.78 + 0.16 * waves[1]),
    )
    layers = dict(
        glioma=[("oedema", oedema), ("tumour", mask), ("fluid", core)],
        meningioma=[("tumour", mask | tail)],
    )
    return head + layers.get(label, [("tumour", mask)]), cv2.boundingRect(
        mask.astype(np.uint8)
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder, "phantoms"), scans=400, seed=0, size=128)
        shutil.make_archive(
            str(dataset.SYNTHETIC_ARCHIVE.with_suffix("")), "zip", folder, "phantoms"
        )
