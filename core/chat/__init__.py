"""A chat from request to last line: `turn.Turn`, and the `queue.FairQueue` for the GPU."""
