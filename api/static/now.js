// The house now: one big number, where it flows, and the curve of the last hour that grows while one looks.

import { Chart, withZero } from "./chart.js";
import { byId, make, say, show } from "./dom.js";
import { duration, known, power, powerParts } from "./numbers.js";

const HOUR_S = 3600;
const SHORTEST_S = 300;
// A screen reader is told at most this often, and only of what changed.
const SPOKEN_EVERY_MS = 10_000;

export class Now {
  #points = []; // [seconds since 1970, watts | null], oldest first
  #longest_s = 90; // further apart are two points only where readings are missing
  #spoken = { at_ms: -Infinity, watts: NaN };
  #chart;

  constructor() {
    this.#chart = new Chart(byId("spark"), {
      range: () => withZero(...extremes(this.#points)),
      draw: (u, ctx, colours) => this.#draw(u, ctx, colours),
    });
  }

  /** Take over what the history knows of the last hour; what was seen live meanwhile stays. */
  remember({ time_s, step_s, series }, channels) {
    const house = series.filter((one) => channels.includes(`${one.source}/${one.device}`));
    if (!house.length || !time_s.length) return;
    const sums = time_s.map((_, i) =>
      house.reduce((sum, one) => (sum === null || !known(one.mean[i]) ? null : sum + one.mean[i]), 0),
    );
    const old = time_s.map((at, i) => [at + step_s / 2, sums[i]]);
    const since = old.at(-1)[0];
    this.#points = [...old, ...this.#points.filter(([at]) => at > since)];
    this.#longest_s = Math.max(90, 2.5 * step_s);
  }

  /** Show a message of the stream, that came `since_s` ago. */
  live({ time, house, devices }, since_s = 0) {
    const watts = house.stale ? null : house.power_w;
    const { number, unit } = powerParts(watts);
    say(byId("now-number"), number);
    say(byId("now-unit"), unit);
    const members = devices.filter((each) => house.of.includes(`${each.source}/${each.device}`));
    this.#flows(house, devices, known(watts));
    this.#age(members, house, since_s);
    const at = Date.parse(time) / 1000;
    if (!since_s) {
      if (at > (this.#points.at(-1)?.[0] ?? 0)) this.#points.push([at, watts]);
      this.#points = this.#points.filter(([then]) => then > at - HOUR_S);
      this.#speak(house, watts);
    }
    this.#redraw(at + since_s);
  }

  /** Nothing is known any more: no number is better than an old one. */
  blank() {
    say(byId("now-number"), "–");
    say(byId("now-unit"), "");
    say(byId("now-age"), "no connection");
    byId("now-flows")
      .querySelectorAll("dd")
      .forEach((cell) => say(cell, "–"));
  }

  #flows(house, devices, known_now) {
    const flows = [];
    const roles = new Set(devices.map((each) => each.role));
    if (!known_now)
      flows.push(["No reading", house.of.length ? "the meter is silent" : "no device has said its power yet"]);
    else if (roles.has("grid")) {
      const made = devices.filter((each) => each.role === "generation" && !each.stale && known(each.values.power_w));
      const generated_w = made.reduce((sum, each) => sum + Math.abs(each.values.power_w), 0);
      if (made.length && house.complete) flows.push(["Used here", power(Math.max(0, house.power_w + generated_w))]);
      if (made.length) flows.push(["Generated", power(generated_w)]);
      flows.push(["From the grid", power(house.import_w)], ["To the grid", power(house.export_w)]);
    } else {
      flows.push(["Sum of devices", String(house.of.length)]);
    }
    if (known_now && !house.complete) flows.push(["Incomplete", "a meter is silent"]);
    const list = byId("now-flows");
    const names = flows.map(([name]) => name).join();
    if (list.dataset.names !== names) {
      list.dataset.names = names;
      list.replaceChildren(...flows.map(([name]) => make("div", {}, make("dt", {}, name), make("dd", {}))));
    }
    list.querySelectorAll("dd").forEach((cell, i) => say(cell, flows[i][1]));
  }

  #age(members, house, since_s) {
    const ages = members
      .filter((each) => house.stale || !each.stale)
      .map((each) => each.age_s)
      .filter(known);
    const age_s = (ages.length ? Math.max(...ages) : 0) + since_s;
    if (!members.length) say(byId("now-age"), "");
    else if (house.stale) say(byId("now-age"), `silent for ${duration(age_s)}`);
    else say(byId("now-age"), age_s < 2.5 ? "just now" : `${duration(age_s)} ago`);
    byId("now-age").classList.toggle("stale", house.stale && members.length > 0);
  }

  #redraw(at) {
    const first = this.#points[0]?.[0] ?? at;
    const length_s = Math.min(HOUR_S, Math.max(SHORTEST_S, at - first));
    this.#chart.set(
      this.#points.map(([then]) => then),
      [at - length_s, at],
    );
    const seen = this.#points.map(([, watts]) => watts).filter(known);
    show(byId("spark-empty"), seen.length < 2);
    const [least, most] = extremes(this.#points);
    const spread = power(least) === power(most) ? power(least) : `${power(least)} to ${power(most)}`;
    const words = seen.length ? `Last ${length_s > HOUR_S - 90 ? "hour" : duration(length_s)}: ${spread}` : "";
    say(byId("spark-words"), words);
  }

  #draw(u, ctx, colours) {
    const ratio = devicePixelRatio || 1;
    const zero = u.valToPos(0, "y", true);
    const line = new Path2D();
    const area = new Path2D();
    let before = null;
    let first = null;
    const close = () => {
      if (before === null) return;
      area.lineTo(before.x, zero);
      area.lineTo(first.x, zero);
      area.closePath();
      before = first = null;
    };
    for (const [at, watts] of this.#points) {
      const point = known(watts) ? { at, x: u.valToPos(at, "x", true), y: u.valToPos(watts, "y", true) } : null;
      if (!point || (before && at - before.at > this.#longest_s)) close();
      if (!point) continue;
      if (before) {
        // Power switches, it does not slide: a level until the next one is known.
        for (const path of [line, area]) {
          path.lineTo(point.x, before.y);
          path.lineTo(point.x, point.y);
        }
      } else {
        first = point;
        line.moveTo(point.x, point.y);
        area.moveTo(point.x, point.y);
      }
      before = point;
    }
    const end = before;
    close();
    ctx.lineWidth = 1.75 * ratio;
    ctx.lineJoin = "round";
    // What is drawn from the grid lies above zero in one colour, what is sent to it below zero in another.
    const { left, top, width, height } = u.bbox;
    const halves = [
      [colours.accent, top - 5 * ratio, zero + ratio],
      [colours.sent, zero + ratio, top + height + 5 * ratio],
    ];
    for (const [colour, from, to] of halves) {
      ctx.save();
      ctx.beginPath();
      ctx.rect(left - 5 * ratio, from, width + 10 * ratio, Math.max(0, to - from));
      ctx.clip();
      ctx.fillStyle = ctx.strokeStyle = colour;
      ctx.globalAlpha = 0.16;
      ctx.fill(area);
      ctx.globalAlpha = 1;
      ctx.stroke(line);
      if (end) {
        ctx.beginPath();
        ctx.arc(end.x, end.y, 3.5 * ratio, 0, 2 * Math.PI);
        ctx.fill();
      }
      ctx.restore();
    }
    if (zero < top + height - ratio) {
      ctx.fillStyle = colours.soft;
      ctx.fillRect(left, zero - ratio / 2, width, ratio);
    }
  }

  #speak(house, watts) {
    const since_ms = performance.now() - this.#spoken.at_ms;
    const changed =
      known(watts) !== known(this.#spoken.watts) ||
      Math.abs(watts - this.#spoken.watts) > 0.05 * Math.abs(this.#spoken.watts);
    if (since_ms < SPOKEN_EVERY_MS || !changed) return;
    this.#spoken = { at_ms: performance.now(), watts: watts ?? NaN };
    const way = house.export_w > 0 ? ", flowing to the grid" : "";
    say(byId("spoken"), known(watts) ? `Whole house: ${power(Math.abs(watts))}${way}` : "Whole house: no reading");
  }
}

function extremes(points) {
  const seen = points.map(([, watts]) => watts).filter(known);
  return seen.length ? [Math.min(...seen), Math.max(...seen)] : [0, 0];
}
