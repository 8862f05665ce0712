// Sums up the readings from `start` to `stop` in windows of <every>, each stamped with its beginning.
//
// It reads raw readings at every level: so a late one moves nothing into another window, a mean is the mean of the
// readings and not of other means, and no level waits for another one. What is written twice replaces itself.
readings = from(bucket: <raw>) |> range(start: start, stop: stop)

// One row comes back for each statement below: how many points it wrote.
store = (tables=<-, name) =>
    tables
        |> to(bucket: <rolled>)
        |> keep(columns: ["_field"])
        |> group()
        |> count(column: "_field")
        |> yield(name: name)

averaged =
    readings
        |> filter(fn: (r) => r._measurement == <measurement> and r._field =~ /^(<averaged_fields>)$/)

averaged
    |> aggregateWindow(every: <every>, fn: mean, timeSrc: "_start", createEmpty: false)
    |> store(name: "mean")

averaged
    |> aggregateWindow(every: <every>, fn: min, timeSrc: "_start", createEmpty: false)
    |> map(fn: (r) => ({r with _field: r._field + "_min"}))
    |> store(name: "min")

averaged
    |> aggregateWindow(every: <every>, fn: max, timeSrc: "_start", createEmpty: false)
    |> map(fn: (r) => ({r with _field: r._field + "_max"}))
    |> store(name: "max")

// Counters, what holds until it changes, and text: a difference of two windows is what was counted between their ends.
readings
    |> filter(fn: (r) => r._measurement == <measurement> and r._field =~ /^(<lasting_fields>)$/)
    |> aggregateWindow(every: <every>, fn: last, timeSrc: "_start", createEmpty: false)
    |> store(name: "last")

// What a person booked at the time that it belongs to.
readings
    |> filter(fn: (r) => r._measurement == <measurement> and r._field =~ /^(<summed_fields>)$/)
    |> aggregateWindow(every: <every>, fn: sum, timeSrc: "_start", createEmpty: false)
    |> store(name: "sum")

// Single pulses of a meter.
readings
    |> filter(fn: (r) => r._measurement == <pulse_measurement> and r._field == "Pulse")
    |> aggregateWindow(every: <every>, fn: sum, timeSrc: "_start", createEmpty: false)
    |> store(name: "pulses")
