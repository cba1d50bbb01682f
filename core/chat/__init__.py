"""A chat, from its request to its last line: `turn.Turn`, and the GPU's `queue.FairQueue`."""
