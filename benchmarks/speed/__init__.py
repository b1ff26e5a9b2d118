"""What things cost, in seconds and memory: a file for each measurement. `speed` and `detection_speed` run most."""
