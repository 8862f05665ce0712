// What all charts have in common: axes, colours, size, and a cursor for mouse, finger, keyboard and screen reader.

/* global uPlot */

import { palette } from "./colours.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/**
 * A chart in an element of a fixed height, drawn by `draw(u, ctx, colours)` on the axes of uPlot.
 *
 * - `x`, `y`: the axes (see `timeAxis` and `plainAxis`); without them there is room for the curve alone.
 * - `range()`: the least and the most of y.
 * - `cursor(index | null)`: which step the reader looks at; returns it in words.
 */
export class Chart {
  constructor(host, { label, x, y, range, draw, cursor, tzDate }) {
    Object.assign(this, { host, x, y, range, draw, cursor, tzDate });
    this.data = [[], []];
    this.span = [0, 1];
    this.index = null;
    if (cursor) this.#makeReadable(label);
    new ResizeObserver(() => this.#fit()).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#rebuild());
  }

  /** Show other data: where each step has its middle, and the ends of the axis. `draw` knows the values. */
  set(middles, span) {
    this.data = [middles, middles.map(() => 0)];
    this.span = span;
    if (!this.plot) this.#rebuild();
    this.plot?.setData(this.data);
    if (this.cursor) {
      this.host.setAttribute("aria-valuemax", Math.max(0, middles.length - 1));
      if (this.index !== null && this.index >= middles.length) this.look(null);
      else this.#tell();
    }
  }

  /** Draw anew, because something else than the data changed. */
  redraw() {
    this.plot?.setData(this.data);
  }

  /** Move the cursor to a step, or take it away. */
  look(index) {
    const [middles] = this.data;
    if (!this.plot || index === null || !middles.length) {
      this.plot?.setCursor({ left: -10, top: -10 });
      return;
    }
    const at = Math.min(Math.max(index, 0), middles.length - 1);
    // The middle of the first step or the last may lie beyond the edge.
    const left = Math.min(Math.max(this.plot.valToPos(middles[at], "x"), 0), this.plot.over.clientWidth - 1);
    this.plot.setCursor({ left, top: 10 });
  }

  #rebuild() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    this.plot?.destroy();
    const colours = palette();
    const own = (axis) => axis && { ...axis, stroke: colours.soft, font: `12px ${FONT}`, labelFont: `12px ${FONT}` };
    const grid = { stroke: colours.line, width: 1 };
    const none = { show: false };
    this.plot = new uPlot(
      {
        width,
        height,
        padding: this.x ? [14, 18, 0, 0] : [4, 6, 2, 0],
        tzDate: this.tzDate,
        legend: none,
        cursor: this.cursor ? { y: false, drag: { x: false, y: false }, points: none } : { show: false },
        scales: {
          x: { time: Boolean(this.tzDate), range: () => this.span },
          y: { range: () => this.range() },
        },
        series: [{}, { paths: () => null, points: none }],
        axes: [
          this.x ? { ...own(this.x), grid: none, ticks: { ...grid, size: 5 } } : none,
          this.y ? { ...own(this.y), grid, ticks: none } : none,
        ],
        hooks: {
          draw: [(u) => this.#draw(u, colours)],
          setCursor: [(u) => this.#moved(u.cursor.left < 0 ? null : (u.cursor.idx ?? null))],
        },
      },
      this.data,
      this.host,
    );
    if (this.cursor) this.#followFinger();
  }

  #draw(u, colours) {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath();
    const room = 5 * (devicePixelRatio || 1); // for what is drawn upon an edge
    ctx.rect(left - room, top - room, width + 2 * room, height + 2 * room);
    ctx.clip();
    this.draw(u, ctx, colours);
    ctx.restore();
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    if (this.plot) this.plot.setSize({ width, height });
    else this.#rebuild();
  }

  #moved(index) {
    if (index === this.index) return;
    this.index = index;
    this.#tell();
  }

  #tell() {
    if (!this.cursor) return;
    const words = this.cursor(this.index);
    this.host.setAttribute("aria-valuenow", this.index ?? Math.max(0, this.data[0].length - 1));
    this.host.setAttribute("aria-valuetext", words);
  }

  #makeReadable(label) {
    const { host } = this;
    host.tabIndex = 0;
    host.setAttribute("role", "slider");
    host.setAttribute("aria-label", label);
    host.setAttribute("aria-valuemin", 0);
    host.setAttribute("aria-valuemax", 0);
    host.setAttribute("aria-valuenow", 0);
    host.addEventListener("keydown", (event) => {
      const last = this.data[0].length - 1;
      const here = this.index ?? last + (event.key === "ArrowLeft" ? 1 : 0);
      const goal = {
        ArrowLeft: here - 1,
        ArrowRight: here + 1,
        ArrowDown: here - 1,
        ArrowUp: here + 1,
        PageDown: here - 12,
        PageUp: here + 12,
        Home: 0,
        End: last,
        Escape: null,
      }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      this.look(goal);
    });
    host.addEventListener("blur", () => this.look(null));
  }

  #followFinger() {
    const { over } = this.plot;
    const follow = (event) => {
      if (event.pointerType !== "mouse") {
        this.plot.setCursor({ left: event.clientX - over.getBoundingClientRect().left, top: 10 });
      }
    };
    over.addEventListener("pointerdown", follow);
    over.addEventListener("pointermove", follow);
  }
}

/** An axis of time, labelled by the clock on the wall of the site. */
export function timeAxis(clock) {
  return {
    space: 68,
    size: 30,
    gap: 4,
    values: (u, splits, axis, space, step) =>
      splits.map((at) => {
        if (step >= 86_400) return clock.say("date", at);
        return clock.isMidnight(at) ? clock.say("weekday", at) : clock.say("time", at);
      }),
  };
}

/** How a chart of this site tells local time. */
export function localTime(clock) {
  return (seconds) => uPlot.tzDate(new Date(seconds * 1000), clock.zone);
}

/** An axis of values, with the unit beside the highest. */
export function valueAxis(write) {
  return { space: 38, size: 54, gap: 6, values: (u, splits) => splits.map((value) => write(value, splits)) };
}

/** Least and most with some room above and below, and zero among them. */
export function withZero(least, most) {
  const low = Math.min(0, least);
  const high = Math.max(0, most);
  const room = (high - low || 1) * 0.06;
  return [low < 0 ? low - room : 0, high > 0 || low === 0 ? high + room : room];
}

/** Hatch the stretches in which there are no readings. */
export function drawGaps(u, ctx, colours, stretches) {
  ctx.fillStyle = hatching(ctx, colours.hatch);
  for (const [from_s, to_s] of stretches) {
    const left = u.valToPos(from_s, "x", true);
    ctx.fillRect(left, u.bbox.top, u.valToPos(to_s, "x", true) - left, u.bbox.height);
  }
}

/** Fill with the hatching that means "estimated" or "not known". */
export function hatching(ctx, colour) {
  const ratio = devicePixelRatio || 1;
  const tile = document.createElement("canvas");
  tile.width = tile.height = Math.round(6 * ratio);
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5 * ratio;
  for (const shift of [-1, 0, 1]) {
    pen.moveTo((shift - 0.1) * tile.width, 1.1 * tile.width);
    pen.lineTo((shift + 1.1) * tile.width, -0.1 * tile.width);
  }
  pen.stroke();
  return ctx.createPattern(tile, "repeat");
}
