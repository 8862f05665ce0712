// Energy by hours, days or months as bars: what was used above zero, what was sent out below, estimates hatched.

import { Chart, hatching, valueAxis, withZero } from "./chart.js";
import { axisNumber, known } from "./numbers.js";

/** Bars in an element. `read(index | null)` says in words what the reader looks at. */
export class Bars {
  #bars = [];
  #chart;

  constructor(host, { label, read }) {
    this.#chart = new Chart(host, {
      label,
      x: {
        space: 1,
        size: 28,
        gap: 4,
        splits: () => this.#labelled(),
        values: (u, splits) => splits.map((at) => this.#bars[at]?.label ?? ""),
      },
      y: valueAxis(axisEnergy),
      range: () => withZero(...this.#extremes()),
      draw: (u, ctx, colours) => this.#draw(u, ctx, colours),
      cursor: read,
    });
    this.host = host;
  }

  /** Show bars `{ label, used_wh, sent_wh, before_wh, estimated }`; null is "nothing known". */
  set(bars) {
    this.#bars = bars;
    const places = bars.map((_, i) => i);
    this.#chart.set(places, [-0.5, Math.max(bars.length, 1) - 0.5]);
  }

  /** As many labels as have room. */
  #labelled() {
    const room = Math.max(1, Math.floor((this.host.clientWidth - 60) / 44));
    const every = [1, 2, 3, 4, 6, 12].find((step) => this.#bars.length / step <= room) ?? 24;
    return this.#bars.map((_, i) => i).filter((i) => i % every === 0);
  }

  #extremes() {
    const used = this.#bars.flatMap((bar) => [bar.used_wh, bar.before_wh]).filter(known);
    const sent = this.#bars.map((bar) => bar.sent_wh).filter(known);
    const most = Math.max(0, ...used);
    const least = -Math.max(0, ...sent);
    return [least, Math.max(most, 100)];
  }

  #draw(u, ctx, colours) {
    const ratio = devicePixelRatio || 1;
    const slot = u.bbox.width / Math.max(1, this.#bars.length);
    const width = Math.max(ratio, Math.min(slot * 0.62, 46 * ratio));
    const zero = u.valToPos(0, "y", true);
    const bar = (i, value, wide, fill) => {
      if (!known(value) || value === 0) return;
      const x = u.valToPos(i, "x", true) - wide / 2;
      const y = u.valToPos(value, "y", true);
      const round = Math.min(3 * ratio, wide / 3, Math.abs(zero - y));
      ctx.fillStyle = fill;
      ctx.beginPath();
      ctx.roundRect(
        x,
        Math.min(y, zero),
        wide,
        Math.abs(zero - y),
        value > 0 ? [round, round, 0, 0] : [0, 0, round, round],
      );
      ctx.fill();
    };
    const hatched = hatching(ctx, colours.card);
    this.#bars.forEach((each, i) => {
      bar(i, each.before_wh, Math.min(slot * 0.86, 60 * ratio), colours.ghost);
      bar(i, each.used_wh, width, colours.accent);
      bar(i, known(each.sent_wh) ? -each.sent_wh : null, width, colours.sent);
      if (each.estimated) bar(i, each.used_wh, width, hatched);
    });
    ctx.fillStyle = colours.soft;
    ctx.fillRect(u.bbox.left, zero - ratio / 2, u.bbox.width, ratio);
  }
}

/** Watt-hours for an axis, as kWh with as many digits as the steps need. */
export function axisEnergy(value, splits) {
  if (value === 0) return "0";
  return axisNumber(value / 1000, Math.abs(splits[1] - splits[0]) / 1000);
}
