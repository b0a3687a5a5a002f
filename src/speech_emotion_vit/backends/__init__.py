"""What runs a model: torch or ONNX Runtime, behind one interface, and the graph that is exported."""
