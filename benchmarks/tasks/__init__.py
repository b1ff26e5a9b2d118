"""One file a task. `registry.py` lists them; `contract.py` says what each must offer."""
