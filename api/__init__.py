"""The api process: shows what the vitals board says, to people and to Prometheus. It reads, and nothing else."""
