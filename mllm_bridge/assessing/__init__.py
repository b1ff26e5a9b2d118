"""What a host says after training: asked greedily, and measured. `mllm_bridge.assess` is the door."""
