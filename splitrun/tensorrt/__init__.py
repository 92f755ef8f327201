"""TensorRT engines: built, keyed, run and compared on the board that they are for."""
