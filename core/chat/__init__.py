"""A chat from its body to its last line: `turn.Turn`, and the `queue.FairQueue` before the GPU."""
