"""What a swap does between its command and the proof: plan, write, report. `mllm_bridge.swap` is the door."""
