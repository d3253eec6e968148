"""From a language model to a small int8 graph: inherit, distil, smooth, export, quantize, search among recipes."""
