"""Models in other formats: ONNX, a page for the browser, NIR."""
