"""Device graphs below fp32: from one ONNX file to another."""
