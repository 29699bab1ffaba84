"""Write a trained run into models/, as the classifier that comes with the repository.

It takes the options of ``python -m braintumor train`` that trained the run, and the
network that this left in build/models/.
"""

import os
import sys

# TensorFlow reads it when it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from braintumor.__main__ import build_parser, settings_from_options


def main(arguments: list[str]) -> None:
    """Release the run that the options name.

    Args:
        arguments: Those of ``python -m braintumor train``.

    Raises:
        SystemExit: It cannot be released; holds a sentence that says why.
    """
    options = build_parser().parse_args(["train", *arguments])
    from braintumor.app import release  # not above: --help need not wait for Keras

    try:
        settings = settings_from_options(options)
        file = release.release(settings, options.model)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"{error}") from None
    size = file.stat().st_size / 1e6
    print(f"models/{file.name}: {size:.1f} MB; commit it with models/checksums.txt.")


if __name__ == "__main__":
    main(sys.argv[1:])
