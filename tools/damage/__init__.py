"""Damaged and hostile inputs, made from a seed, fed to the real readers under limits: `python -m tools.damage`.

`values` damages JSON values and bytes, `pictures` makes images, `readers` knows for every kind of input a small valid
world, how it is damaged and who reads it, `running` feeds them in a process of its own and judges what came.
"""
