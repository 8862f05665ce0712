// One piece of `./orchestrator.py influx backfill`, and of what the writer does after late readings; what follows these
// lines is rollup.flux.
start = <start>
stop = <stop>

