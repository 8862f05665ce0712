// One device by itself: all that it says now, each metric as a chart, its energy by day, and when it was silent.

import { ask, get, key, Refused } from "./ask.js";
import { Chart, drawGaps, localTime, timeAxis, valueAxis, withZero } from "./chart.js";
import { choice } from "./choice.js";
import { ago } from "./devices.js";
import { byId, make, say, show } from "./dom.js";
import { registerOf } from "./energy.js";
import {
  axisNumber,
  duration,
  energy,
  known,
  metricName,
  metricUnit,
  metricValue,
  money,
  power,
  powerParts,
} from "./numbers.js";
import { axisPower, RANGES, rangeLength_s, rangeWords, refreshAfter_s } from "./power.js";
import { areaPath, gaps, linePath } from "./stack.js";
import { titleOf } from "./titles.js";

export class Device {
  #range = "24h";
  #metric = "power_w";
  #of = null; // { source, device }
  #answer = { kind: "gauge", step_s: 60, time_s: [], n: [] };
  #asked = 0;
  #asked_ms = -Infinity;
  #chart;

  constructor(clock, now_s, currency) {
    this.clock = clock;
    this.currency = currency;
    this.now_s = now_s;
    choice(byId("device-range"), "device-range", RANGES, this.#range, (range) => {
      this.#range = range;
      this.load();
    });
    byId("device-metric").addEventListener("change", (event) => {
      this.#metric = event.target.value;
      this.load();
    });
    byId("device-download").addEventListener("click", (event) => this.#download(event));
    this.#chart = new Chart(byId("device-chart"), {
      label: "Values of the device, a moment of them",
      x: timeAxis(clock),
      y: valueAxis((value, splits) => this.#axis(value, splits)),
      tzDate: localTime(clock),
      range: () => this.#extremes(),
      draw: (u, ctx, colours) => this.#draw(u, ctx, colours),
      cursor: (index) => this.#readout(index),
    });
  }

  /** Turn to a device. */
  async open(of, message) {
    this.#of = of;
    this.#metric = "power_w";
    const title = titleOf(of.source, of.device);
    say(byId("device-title"), title);
    say(byId("device-source"), title === of.device ? of.source : `${of.source}/${of.device}`);
    byId("device-metric").replaceChildren();
    byId("device-days").replaceChildren();
    byId("device-gaps").replaceChildren();
    this.#take({ kind: "gauge", step_s: 60, time_s: [], n: [], mean: [], min: [], max: [] });
    if (message) this.live(message);
    await this.#metrics();
    await Promise.all([this.load(), this.#days(), this.#gaps()]);
  }

  close() {
    this.#of = null;
    this.#asked++;
  }

  /** Ask again if what is shown has grown old. */
  async refresh() {
    if (this.#of && performance.now() - this.#asked_ms > refreshAfter_s(this.#range) * 1000) {
      await Promise.all([this.load(), this.#days(), this.#gaps()]);
    }
  }

  /** Show a message of the stream that came `since_s` ago. */
  live({ devices }, since_s = 0) {
    if (!this.#of) return;
    const mine = devices.find((each) => each.source === this.#of.source && each.device === this.#of.device);
    const stale = !mine || mine.stale;
    const age_s = known(mine?.age_s) ? mine.age_s + since_s : null;
    say(byId("device-age"), !mine ? "never heard" : stale ? `stale for ${duration(age_s ?? 0)}` : ago(age_s));
    byId("device-age").classList.toggle("stale", stale);
    const values = stale ? {} : mine.values;
    const { number, unit } = powerParts(values.power_w);
    say(byId("device-power"), number);
    say(byId("device-unit"), unit);
    const names = Object.keys(values).filter((name) => name !== "power_w");
    const list = byId("device-values");
    if (list.dataset.names !== names.join()) {
      list.dataset.names = names.join();
      list.replaceChildren(...names.map((name) => make("div", {}, make("dt", {}, metricName(name)), make("dd", {}))));
    }
    list.querySelectorAll("dd").forEach((cell, i) => say(cell, metricValue(names[i], values[names[i]], this.currency)));
    show(byId("device-silent"), stale);
    const last = mine?.last_values?.power_w;
    const said = known(last) && mine.time ? this.clock.say("moment", Date.parse(mine.time) / 1000) : null;
    say(byId("device-silent"), `It says nothing now.${said ? ` The last that it said, ${said}: ${power(last)}.` : ""}`);
    const quality = { estimated: "Estimated, not measured.", simulated: "Simulated: no electricity is involved." }[
      mine?.quality
    ];
    say(
      byId("device-quality"),
      [quality, mine?.clock === "unsynced" ? "Its time may be wrong: the clock was not set." : ""]
        .filter(Boolean)
        .join(" "),
    );
  }

  blank() {
    this.live({ devices: [] });
    say(byId("device-age"), "no connection");
  }

  /** Ask for the metric and the range that are chosen. */
  async load() {
    if (!this.#of) return;
    const number = ++this.#asked;
    this.#asked_ms = performance.now();
    const parameters = { ...this.#of, metric: this.#metric, from: `-${this.#range}` };
    byId("device-download").href = `/api/v1/download.csv?${new URLSearchParams(parameters)}`;
    try {
      const answer = await ask("series", parameters);
      if (number === this.#asked) this.#take(answer);
    } catch (error) {
      if (number === this.#asked && error instanceof Refused) this.#none(error.message);
    }
  }

  async #metrics() {
    const of = this.#of;
    const { devices } = await ask("devices").catch(() => ({ devices: [] }));
    if (of !== this.#of) return;
    const found = devices.find((each) => each.source === of.source && each.device === of.device);
    const metrics = (found?.metrics ?? ["power_w"]).filter((metric) => metric !== "state");
    if (!metrics.includes(this.#metric)) this.#metric = metrics[0] ?? "power_w";
    const options = metrics.map((metric) =>
      make("option", { value: metric, selected: metric === this.#metric }, metricName(metric)),
    );
    byId("device-metric").replaceChildren(...options);
  }

  #take(answer) {
    this.#answer = answer;
    const now = this.now_s();
    const numbers = this.#isRegister() ? answer.increase : answer.mean;
    say(
      byId("device-empty"),
      answer.kind === "text" ? "This metric is a word, not a number." : "Nothing was recorded in this time.",
    );
    show(byId("device-empty"), !(numbers ?? []).some(known));
    const middles = answer.time_s.map((at) => at + answer.step_s / 2);
    this.#chart.set(middles, [now - rangeLength_s(this.#range), now]);
    this.#readout(null);
    const seen = (numbers ?? []).filter(known);
    const what = metricName(this.#metric).toLowerCase();
    const least = Math.min(...(answer.min ?? []).filter(known));
    const most = Math.max(...(answer.max ?? []).filter(known));
    const spread = this.#isRegister()
      ? `it rose by ${this.#value(seen.reduce((sum, each) => sum + each, 0))}`
      : `between ${this.#value(least)} and ${this.#value(most)}`;
    say(
      byId("device-summary"),
      seen.length
        ? `${metricName(this.#metric)}, ${rangeWords(this.#range)}: ${spread}.`
        : `No ${what} in the ${rangeWords(this.#range)}.`,
    );
  }

  #none(words) {
    this.#take({ kind: "gauge", step_s: 60, time_s: [], n: [], mean: [], min: [], max: [] });
    say(byId("device-empty"), words);
  }

  #isRegister() {
    return this.#answer.kind === "register" || this.#answer.kind === "booking";
  }

  #value(value) {
    return metricValue(this.#metric, value, this.currency);
  }

  #axis(value, splits) {
    const unit = metricUnit(this.#metric);
    if (unit === "W") return axisPower(value, splits);
    const scale = unit === "kWh" ? 1000 : 1;
    return axisNumber(value / scale, Math.abs((splits[1] ?? 1) - splits[0]) / scale);
  }

  #extremes() {
    const { min, max, increase } = this.#answer;
    const low = (this.#isRegister() ? increase : min)?.filter(known) ?? [];
    const high = (this.#isRegister() ? increase : max)?.filter(known) ?? [];
    if (!low.length) return [0, 100];
    const [least, most] = [Math.min(...low), Math.max(...high)];
    const from_zero = this.#isRegister() || /_(w|va|var|a)$/.test(this.#metric);
    if (from_zero) return most === 0 && least === 0 ? [0, 1] : withZero(least, most);
    const room = (most - least || Math.abs(most) || 1) * 0.08;
    return [least - room, most + room];
  }

  #draw(u, ctx, colours) {
    const { time_s, step_s, min, max, mean, increase } = this.#answer;
    const ratio = devicePixelRatio || 1;
    drawGaps(u, ctx, colours, gaps(this.#answer, this.now_s()));
    ctx.fillStyle = ctx.strokeStyle = colours.accent;
    if (this.#isRegister()) {
      ctx.globalAlpha = 0.85;
      ctx.fill(
        areaPath(
          u,
          time_s,
          increase.map(() => 0),
          increase,
          step_s,
        ),
      );
      return;
    }
    if (!mean) return;
    ctx.globalAlpha = 0.2;
    ctx.fill(areaPath(u, time_s, min, max, step_s));
    ctx.globalAlpha = 1;
    ctx.lineWidth = 1.5 * ratio;
    ctx.stroke(linePath(u, time_s, mean, step_s));
  }

  #readout(index) {
    const { time_s, min, max, mean, increase, step_s } = this.#answer;
    const words = () => {
      if (index === null || index >= time_s.length) return `${metricName(this.#metric)}, ${rangeWords(this.#range)}`;
      const when = this.clock.say("moment", time_s[index]);
      if (this.#isRegister()) return `${when}: ${this.#value(increase[index])} in ${duration(step_s)}`;
      const spread = min[index] === max[index] ? "" : ` (${this.#value(min[index])} to ${this.#value(max[index])})`;
      return `${when}: ${this.#value(mean[index])}${spread}`;
    };
    const text = words();
    say(byId("device-when"), text);
    return text;
  }

  async #days() {
    const of = this.#of;
    if (!of) return;
    const answer = await ask("energy", { by: "day", from: "-7d", ...of }).catch(() => null);
    if (!answer || of !== this.#of) return;
    const channel = registerOf(answer, of.source, of.device);
    show(byId("device-energy"), Boolean(channel));
    if (!channel) return;
    const most = Math.max(1, ...channel.energy_wh.filter(known));
    const rows = answer.periods.map((period, i) => {
      const used = channel.energy_wh[i];
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = known(used) ? `${(100 * Math.max(0, used)) / most}%` : "0";
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, this.clock.say("day", Date.parse(period.start) / 1000)),
        make("td", { class: "track" }, bar),
        make("td", {}, energy(used), channel.estimated[i] ? make("small", {}, " estimated") : null),
        make("td", {}, money(channel.cost?.[i], answer.currency)),
      );
    });
    byId("device-days").replaceChildren(...rows.slice(-7).reverse());
  }

  async #gaps() {
    const of = this.#of;
    if (!of) return;
    const { gaps } = await ask("gaps", { since: "-7d" }).catch(() => ({ gaps: [] }));
    if (of !== this.#of) return;
    const mine = gaps.filter((gap) => gap.source === of.source && (gap.device === of.device || !gap.device));
    const items = mine
      .slice(-10)
      .reverse()
      .map((gap) => {
        const from = this.clock.say("moment", Date.parse(gap.from) / 1000);
        const energy_words = gap.energy_known ? "its energy is known" : "its energy is not known";
        return make(
          "li",
          {},
          make("b", {}, `${from}, ${gap.to ? `for ${duration(gap.length_s)}` : "until now"}`),
          ` ${gap.what}; ${energy_words}`,
        );
      });
    byId("device-gaps").replaceChildren(...items);
    show(byId("device-gaps-none"), !items.length);
  }

  /** A link cannot carry a key: with one, the file is fetched and handed over. */
  async #download(event) {
    if (!key()) return;
    event.preventDefault();
    const answer = await get(event.currentTarget.getAttribute("href")).catch(() => null);
    if (!answer) return;
    const address = URL.createObjectURL(await answer.blob());
    make("a", { href: address, download: `${this.#of.source}-${this.#of.device}-${this.#metric}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}
