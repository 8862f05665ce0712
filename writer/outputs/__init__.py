"""Outputs: one file each; a file of this folder is a kind that a user can configure."""
