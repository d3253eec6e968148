"""From a language model to a small int8 ONNX graph: distil, smooth, export, quantize, search."""
