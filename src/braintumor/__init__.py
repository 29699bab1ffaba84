"""Helpers of the notebooks: brain tumours in MRI, VGG16 against ResNet50. Research only, not for diagnosis."""

import os

# by itself TensorFlow takes oneDNN's convolutions, several times faster, with AVX-512 only; it reads this on import
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault(
    "OPENCV_IO_MAX_IMAGE_PIXELS", "67108864"
)  # no scan is larger; OpenCV reads it on import, too
