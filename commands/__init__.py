"""Commands: one file each; a file of this folder without a leading underscore is a command of `orchestrator.py`."""
