// Steps of time laid upon one another: what flows in above zero, what flows out below it, and nothing in a gap.

/**
 * Stack series of steps. Each gets `low[i]` and `high[i]`, both null where it has no reading.
 *
 * A value below zero (a plug that a balcony's panels feed) hangs from the axis, wherever its series stands.
 */
export function stacked(series, length) {
  const above = new Array(length).fill(0);
  const below = new Array(length).fill(0);
  return series.map((one) => {
    const low = new Array(length).fill(null);
    const high = new Array(length).fill(null);
    one.values.forEach((value, i) => {
      if (value === null || value === undefined) return;
      const pile = value < 0 ? below : above;
      low[i] = pile[i];
      high[i] = pile[i] += value;
    });
    return { ...one, low, high };
  });
}

/** The stretches in which no step is missing: pairs of the first and the last index. */
export function runs(time_s, values, step_s) {
  const found = [];
  let first = null;
  values.forEach((value, i) => {
    const here = value !== null && value !== undefined;
    const apart = i > 0 && time_s[i] - time_s[i - 1] > 1.5 * step_s;
    if (first !== null && (!here || apart)) {
      found.push([first, i - 1]);
      first = null;
    }
    if (here && first === null) first = i;
  });
  if (first !== null) found.push([first, values.length - 1]);
  return found;
}

/** The stretches in which nobody said anything, from the first reading until now. */
export function gaps({ time_s, step_s }, now_s) {
  const ends = [...time_s.slice(1), ...(time_s.length && now_s - time_s.at(-1) > 3 * step_s ? [now_s] : [])];
  return ends.flatMap((at, i) => (at - time_s[i] > 1.5 * step_s ? [[time_s[i] + step_s, at]] : []));
}

/** An area between two lines of steps, as a path on the canvas of a chart. */
export function areaPath(u, time_s, low, high, step_s) {
  const path = new Path2D();
  for (const [first, last] of runs(time_s, high, step_s)) {
    const begin = (i) => u.valToPos(time_s[i], "x", true);
    const end = (i) => u.valToPos(i < last ? time_s[i + 1] : time_s[i] + step_s, "x", true);
    path.moveTo(begin(first), u.valToPos(low[first], "y", true));
    for (let i = first; i <= last; i++) {
      const y = u.valToPos(high[i], "y", true);
      path.lineTo(begin(i), y);
      path.lineTo(end(i), y);
    }
    for (let i = last; i >= first; i--) {
      const y = u.valToPos(low[i], "y", true);
      path.lineTo(end(i), y);
      path.lineTo(begin(i), y);
    }
    path.closePath();
  }
  return path;
}

/** A line of steps, broken where there is no reading. */
export function linePath(u, time_s, values, step_s) {
  const path = new Path2D();
  for (const [first, last] of runs(time_s, values, step_s)) {
    for (let i = first; i <= last; i++) {
      const y = u.valToPos(values[i], "y", true);
      const begin = u.valToPos(time_s[i], "x", true);
      if (i === first) path.moveTo(begin, y);
      else path.lineTo(begin, y);
      path.lineTo(u.valToPos(i < last ? time_s[i + 1] : time_s[i] + step_s, "x", true), y);
    }
  }
  return path;
}
