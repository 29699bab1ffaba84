"""Helpers of the notebooks: brain tumours in MRI, VGG16 against ResNet50. Research only, not for diagnosis."""

import os

# TensorFlow asks oneDNN for its convolutions on processors with AVX-512 only. With AVX2 they take a half to a third
# of the time in oneDNN too; TensorFlow reads this when it is imported, so this package comes before keras.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
