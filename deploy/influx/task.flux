// A task, made by `./orchestrator.py influx setup`; what follows these lines is rollup.flux.
import "date"

option task = {name: <task>, every: <every>, offset: <offset>}

// Whole windows only. Each is computed anew for a while, so a reading may be late by that much. What comes later is
// rolled up by the writer itself, or by `./orchestrator.py influx backfill`.
start = date.truncate(t: <look_back>, unit: <every>)
stop = date.truncate(t: now(), unit: <every>)

