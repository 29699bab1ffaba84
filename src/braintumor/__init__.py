"""Brain tumours in MRI with Keras: VGG16 against ResNet50. The modules build on each other in this order:
config, phantoms, download, dataset, splits, generators, models, training, evaluation, plots."""
