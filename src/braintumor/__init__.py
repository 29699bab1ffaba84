"""Classify brain tumors in MRI with Keras: VGG16 and ResNet50 compared.

Research only, not for diagnosis.
"""

import os

# TensorFlow reads this on import. By itself it takes oneDNN's convolutions, which are
# several times faster, on processors with AVX-512 only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# OpenCV reads this on import. No scan has more pixels.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "67108864")
# OpenCV reads this, too. What is wrong with a file is said once, in our own words.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
