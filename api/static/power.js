// Who drew how much, and when: power stacked by device, the meter of the house as a line over it, gaps as gaps.

import { ask, Refused } from "./ask.js";
import { Chart, drawGaps, localTime, timeAxis, valueAxis, withZero } from "./chart.js";
import { choice } from "./choice.js";
import { assign, colourOf } from "./colours.js";
import { byId, make, say, show } from "./dom.js";
import { axisNumber, duration, known, power } from "./numbers.js";
import { areaPath, gaps, linePath, stacked } from "./stack.js";
import { titleOf } from "./titles.js";

export const RANGES = { "1h": "1 h", "24h": "24 h", "7d": "7 d", "30d": "30 d" };
const LENGTH_S = { "1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };
const IN_WORDS = { "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days" };
const EVERY_S = { "1h": 15, "24h": 60, "7d": 300, "30d": 900 };

/** When to ask again for a range, and what it is called. */
export const rangeWords = (range) => IN_WORDS[range];
export const refreshAfter_s = (range) => EVERY_S[range];
export const rangeLength_s = (range) => LENGTH_S[range];

/** Watts for an axis, in the unit of the largest. */
export function axisPower(value, splits) {
  if (value === 0) return "0";
  const step = Math.abs((splits[1] ?? 0) - splits[0]) || 1;
  const kilo = Math.max(...splits.map(Math.abs)) >= 1000;
  return kilo ? `${axisNumber(value / 1000, step / 1000)} kW` : `${axisNumber(value, step)} W`;
}

export class Power {
  #range = "24h";
  #hidden = new Set();
  #answer = { time_s: [], step_s: 60, series: [] };
  #parts = [];
  #layers = [];
  #lines = [];
  #asked = 0;
  #first = true;
  #asked_ms = -Infinity;
  #chart;

  constructor(clock, now_s) {
    this.clock = clock;
    this.now_s = now_s;
    choice(byId("power-range"), "power-range", RANGES, this.#range, (range) => {
      this.#range = range;
      this.load();
    });
    this.#chart = new Chart(byId("power-chart"), {
      label: "Power by device, a moment of it",
      x: timeAxis(clock),
      y: valueAxis(axisPower),
      tzDate: localTime(clock),
      range: () => withZero(...this.#extremes()),
      draw: (u, ctx, colours) => this.#draw(u, ctx, colours),
      cursor: (index) => this.#readout(index),
    });
  }

  /** Ask again if what is shown has grown old. */
  async refresh() {
    if (performance.now() - this.#asked_ms > EVERY_S[this.#range] * 1000) await this.load();
  }

  /** Ask for the range that is chosen. */
  async load() {
    const range = this.#range;
    const number = ++this.#asked;
    this.#asked_ms = performance.now();
    try {
      const answer = await ask("series/stack", { metric: "power_w", from: `-${range}` });
      if (number !== this.#asked) return;
      // Of a house that began a moment ago, a day would be empty but for a hair's breadth.
      if (this.#first && !(answer.time_s[0] < this.now_s() - LENGTH_S["1h"])) {
        this.#first = false;
        document.querySelector('#power-range input[value="1h"]').click();
        return;
      }
      this.#first = false;
      this.#show(answer, range);
    } catch (error) {
      if (number !== this.#asked || !(error instanceof Refused)) return;
      this.#trouble(error.message);
    }
  }

  /** Say why there is no chart. */
  none(words) {
    this.#trouble(words);
  }

  #trouble(words) {
    say(byId("power-empty"), words);
    show(byId("power-empty"), true);
    byId("power").classList.add("without");
  }

  #show(answer, range) {
    this.#answer = answer;
    byId("power").classList.remove("without");
    this.#parts = arranged(answer.series);
    const empty = !answer.time_s.length;
    say(byId("power-empty"), "Nothing was recorded in this time. The first minutes appear here by themselves.");
    show(byId("power-empty"), empty);
    this.#legend();
    this.#table(range);
    this.#lay();
    const now = this.now_s();
    const middles = answer.time_s.map((at) => at + answer.step_s / 2);
    this.#chart.set(middles, [now - LENGTH_S[range], now]);
    document.dispatchEvent(new CustomEvent("colours"));
  }

  #shown(part) {
    return !this.#hidden.has(part.key);
  }

  #lay() {
    const shown = this.#parts.filter((part) => this.#shown(part));
    this.#layers = stacked(
      shown.filter((part) => part.role !== "grid"),
      this.#answer.time_s.length,
    );
    this.#lines = shown.filter((part) => part.role === "grid");
  }

  #extremes() {
    const tops = [...this.#layers.map((layer) => layer.high), ...this.#lines.map((line) => line.values)];
    let least = 0;
    let most = 0;
    for (const values of tops) {
      for (const value of values) {
        if (value > most) most = value;
        if (value < least) least = value;
      }
    }
    return most === 0 && least === 0 ? [0, 100] : [least, most];
  }

  #draw(u, ctx, colours) {
    const { time_s, step_s } = this.#answer;
    const ratio = devicePixelRatio || 1;
    drawGaps(u, ctx, colours, gaps(this.#answer, this.now_s()));
    for (const layer of this.#layers) {
      ctx.fillStyle = colours[layer.colour];
      ctx.globalAlpha = 0.88;
      ctx.fill(areaPath(u, time_s, layer.low, layer.high, step_s));
    }
    ctx.globalAlpha = 1;
    for (const line of this.#lines) {
      ctx.strokeStyle = colours.grid;
      ctx.lineWidth = 1.5 * ratio;
      ctx.stroke(linePath(u, time_s, line.values, step_s));
    }
    ctx.fillStyle = colours.soft;
    ctx.fillRect(u.bbox.left, u.valToPos(0, "y", true) - ratio / 2, u.bbox.width, ratio);
  }

  #legend() {
    const buttons = this.#parts.map((part) =>
      make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            "aria-pressed": String(this.#shown(part)),
            onclick: (event) => this.#toggle(part, event.currentTarget),
          },
          make("span", {
            class: `swatch ${part.role === "grid" ? "line" : ""} of-${part.colour}`,
            "aria-hidden": "true",
          }),
          make("span", { class: "name" }, part.name),
          make("span", { class: "value" }),
        ),
      ),
    );
    const focused = [...byId("power-legend").querySelectorAll("button")].indexOf(document.activeElement);
    byId("power-legend").replaceChildren(...buttons);
    if (focused >= 0) byId("power-legend").querySelectorAll("button")[focused]?.focus();
    this.#readout(null);
  }

  #toggle(part, button) {
    if (!this.#hidden.delete(part.key)) this.#hidden.add(part.key);
    button.setAttribute("aria-pressed", String(this.#shown(part)));
    this.#lay();
    this.#chart.redraw();
  }

  #readout(index) {
    const { time_s } = this.#answer;
    const at = index === null || index >= time_s.length ? null : index;
    const when = at === null ? `Mean of the ${IN_WORDS[this.#range]}` : this.clock.say("moment", time_s[at]);
    const values = this.#parts.map((part) =>
      upright(part, at === null ? mean(part.values) : (part.values[at] ?? null)),
    );
    byId("power-legend")
      .querySelectorAll(".value")
      .forEach((cell, i) => {
        say(cell, power(values[i]));
      });
    say(byId("power-when"), when);
    const said = this.#parts.map(({ name }, i) => `${name} ${known(values[i]) ? power(values[i]) : "no reading"}`);
    return `${when}: ${said.join(", ")}`;
  }

  #table(range) {
    const { step_s } = this.#answer;
    const rows = this.#parts.map((part) => {
      const missing_s = silence_s(this.#answer, part.values);
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, part.name),
        make("td", {}, power(upright(part, mean(part.values)))),
        make("td", {}, power(upright(part, extreme(part.values)))),
        make("td", {}, missing_s ? duration(missing_s) : "–"),
      );
    });
    byId("power-rows").replaceChildren(...rows);
    show(byId("power-gaps"), gaps(this.#answer, this.now_s()).length > 0);
    const largest = [...this.#parts]
      .filter((part) => part.role === "part")
      .sort((a, b) => mean(b.values) - mean(a.values))[0];
    const words = largest ? ` ${largest.name} drew most, ${power(mean(largest.values))} in the mean.` : "";
    say(byId("power-summary"), `Power by device, ${IN_WORDS[range]}, in steps of ${duration(step_s)}.${words}`);
  }
}

/** Steady ones first, so that those that come and go stand upon them; what generates hangs below zero. */
function arranged(series) {
  const parts = series
    .map(({ source, device, role, mean: values }) => ({
      key: `${source}/${device}`,
      name: titleOf(source, device),
      role,
      values,
    }))
    .filter((one) => one.values.some(known));
  const uses = parts
    .filter((part) => part.role === "part")
    .map((part) => ({ ...part, median: median(part.values), mean: mean(part.values) }));
  assign([...uses].sort((a, b) => b.mean - a.mean).map((part) => part.key));
  uses.sort((a, b) => b.median - a.median || b.mean - a.mean);
  const own = uses.filter((part) => colourOf(part.key) !== "others");
  const rest = uses.filter((part) => colourOf(part.key) === "others");
  const small = rest.length > 1 ? [together(rest)] : rest;
  const made = parts
    .filter((part) => part.role === "generation")
    .map((part) => ({ ...part, values: part.values.map(downwards) }));
  const grid = parts.filter((part) => part.role === "grid");
  return [...grid, ...own, ...small, ...made].map((part) => ({ ...part, colour: colourOf(part.key, part.role) }));
}

function together(parts) {
  const values = parts[0].values.map((_, i) => {
    const here = parts.map((part) => part.values[i]).filter(known);
    return here.length ? here.reduce((sum, value) => sum + value, 0) : null;
  });
  return { key: "others", name: `${parts.length} others`, role: "part", values };
}

/** What hangs below zero in the chart is told as what it is: so much generated. */
function upright(part, value) {
  return part.role === "generation" && known(value) ? Math.abs(value) : value;
}

function downwards(value) {
  return known(value) ? -Math.abs(value) : null;
}

function mean(values) {
  const seen = values.filter(known);
  return seen.length ? seen.reduce((sum, value) => sum + value, 0) / seen.length : null;
}

function median(values) {
  const seen = values.filter(known).sort((a, b) => a - b);
  return seen.length ? seen[Math.floor(seen.length / 2)] : null;
}

function extreme(values) {
  return values.filter(known).reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
}

/** For how long one series said nothing between its first reading and its last. */
function silence_s({ time_s, step_s }, values) {
  const seen = time_s.filter((_, i) => known(values[i]));
  return seen.length ? Math.round((seen.at(-1) - seen[0]) / step_s + 1 - seen.length) * step_s : 0;
}
