"""The parent process: forks one process per part of the house, watches, restarts, and never dies of what they do."""
