"""What computes a model: compiled code of our own, onnxruntime, or numpy where there is neither."""
