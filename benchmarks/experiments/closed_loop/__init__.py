"""The closed loop: a detector trained here labels the images that CLOC trains on; no outside model.

Starts the kit's own commands as processes and sets their figures side by side; knows nothing of models or losses.
"""
