"""A host on disk: folders, safetensors by byte ranges, which tensors are the tower's and which the projector's."""
