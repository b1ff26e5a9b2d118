"""What this kit writes, scored by programs of other people in an environment of their own.

`environment` makes that environment, `clip_scores` runs CLIP_benchmark on an open_clip export, `answers` runs lmms-eval
on a swapped host. Each renders its own set, scores it here and there, and prints both figures side by side.
"""
