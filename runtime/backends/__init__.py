"""What computes a model: onnxruntime, or numpy where there is none."""
