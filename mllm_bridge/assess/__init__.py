"""What a host says after training, `python -m mllm_bridge.assess`: asked greedily, and measured."""
