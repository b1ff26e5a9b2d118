"""The proof of a swap: what can be said without weights, what the files say, what the running host says."""
