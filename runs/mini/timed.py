"""Kokoro with its durations among its outputs: ``timed.py MODEL.onnx TIMED.onnx``.

The model decides how many frames each phoneme lasts and then spreads its states over these; that number is within the
graph and only has to be named as an output. With it, every phoneme of the training data has its exact times.
"""

import sys

import onnx
from onnx import TensorProto, helper

ROUNDED = "/encoder/Clip_output_0"
"""Frames per token, whole numbers of at least 1: what the states are spread by."""


def main() -> None:
    """Read the command line, and write the model."""
    source, target = sys.argv[1:]
    model = onnx.load(source)
    if not any(ROUNDED in node.output for node in model.graph.node):
        sys.exit(f"error: {source} has no {ROUNDED}. Give the Kokoro-82M that materials.py makes.")
    model.graph.node.append(helper.make_node("Cast", [ROUNDED], ["duration"], to=TensorProto.INT64))
    model.graph.output.append(helper.make_tensor_value_info("duration", TensorProto.INT64, None))
    onnx.save(model, target)


if __name__ == "__main__":
    main()
