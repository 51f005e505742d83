"""Models in the formats of others: ONNX, a page for the browser, NIR."""
