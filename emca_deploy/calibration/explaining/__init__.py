"""What a backend runs in INT8 of a quantized model, and why not the rest."""
