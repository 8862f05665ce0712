// Numbers in words: watts, kilowatt-hours, money, ages and times, as the reader's own country writes them.

const NOTHING = "–";
const formats = new Map();

function decimal(value, digits) {
  if (!formats.has(digits)) {
    formats.set(
      digits,
      new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
    );
  }
  return signed(formats.get(digits), value);
}

/** Print with a real minus, and with none before nothing: "−0" says that something flows out where nothing flows. */
function signed(format, value) {
  const digits = format.resolvedOptions().maximumFractionDigits;
  return format.format(Math.abs(value) < 0.5 / 10 ** digits ? 0 : value).replace("-", "\u2212");
}

/** Is this a number that can be shown? `null` is "unknown", which is not zero. */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Power as a number and its unit: 86.4 → 86 W, 1234 → 1.23 kW. */
export function powerParts(watts) {
  if (!known(watts)) return { number: NOTHING, unit: "" };
  const size = Math.abs(watts);
  if (size >= 999.5) return { number: decimal(watts / 1000, size >= 99_995 ? 1 : 2), unit: "kW" };
  return { number: decimal(watts, size >= 0.05 && size < 9.95 && size % 1 ? 1 : 0), unit: "W" };
}

export function power(watts) {
  return joined(powerParts(watts));
}

/** Energy as a number and its unit, always in kWh: that is what is paid for. */
export function energyParts(wattHours) {
  if (!known(wattHours)) return { number: NOTHING, unit: "" };
  const kwh = wattHours / 1000;
  const size = Math.abs(kwh);
  return { number: decimal(kwh, size >= 999.5 ? 0 : size >= 99.95 ? 1 : 2), unit: "kWh" };
}

export function energy(wattHours) {
  return joined(energyParts(wattHours));
}

export function money(amount, currency) {
  if (!known(amount) || !currency) return NOTHING;
  try {
    return signed(new Intl.NumberFormat(undefined, { style: "currency", currency }), amount);
  } catch {
    return `${decimal(amount, 2)} ${currency}`;
  }
}

/** How much more or less one amount is than another, in words; empty where there is nothing to compare. */
export function comparison(now, before) {
  if (!known(now) || !known(before) || before <= 0) return "";
  const percent = Math.round(((now - before) / before) * 100);
  if (percent === 0) return "the same";
  if (percent >= 300) return `${decimal(now / before, 1)} times as much`;
  return `${decimal(Math.abs(percent), 0)} % ${percent > 0 ? "more" : "less"}`;
}

/** A length of time: 12 s, 5 min, 3 h, 2 days. The same rungs as in every message of the house. */
export function duration(seconds) {
  if (seconds < 119.5) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

export function count(number, noun) {
  return `${decimal(number, 0)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A number beside an axis, with as many digits as its steps have. */
export function axisNumber(value, step) {
  let digits = 0;
  while (digits < 4 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
  return decimal(value, digits);
}

const METRICS = {
  power_w: ["Power", "W"],
  apparent_power_va: ["Apparent power", "VA"],
  reactive_power_var: ["Reactive power", "var"],
  power_factor: ["Power factor", "", 2],
  voltage_v: ["Voltage", "V", 1],
  current_a: ["Current", "A", 2],
  frequency_hz: ["Frequency", "Hz", 2],
  energy_wh: ["Energy", "kWh"],
  energy_export_wh: ["Energy sent out", "kWh"],
  device_energy_wh: ["Counter of the device", "kWh"],
  device_energy_export_wh: ["Counter of the device, sent out", "kWh"],
  meter_reading_wh: ["Reading of the meter", "kWh"],
  pulses: ["Pulses", "", 0],
  gas_m3: ["Gas", "m³", 3],
  temperature_c: ["Temperature", "°C", 1],
  cost: ["Cost", "", 2],
  state: ["State", ""],
};
const UNITS = {
  wh: "kWh",
  w: "W",
  va: "VA",
  var: "var",
  v: "V",
  a: "A",
  hz: "Hz",
  c: "°C",
  m3: "m³",
  s: "s",
  percent: "%",
};

/** What a metric is called: `voltage_v` → Voltage. One that nobody named is shown by its own words. */
export function metricName(metric) {
  if (METRICS[metric]) return METRICS[metric][0];
  const words = metric.split("_");
  if (words.length > 1 && UNITS[words.at(-1)]) words.pop();
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The unit in which a metric is shown. */
export function metricUnit(metric) {
  return METRICS[metric]?.[1] ?? UNITS[metric.split("_").at(-1)] ?? "";
}

/** One value of a metric with its unit. */
export function metricValue(metric, value, currency = null) {
  if (typeof value === "string") return value;
  if (metric === "cost" && currency) return money(value, currency);
  if (!known(value)) return NOTHING;
  const unit = metricUnit(metric);
  if (unit === "kWh") return energy(value);
  if (unit === "W") return power(value);
  const digits = METRICS[metric]?.[2] ?? (Number.isInteger(value) ? 0 : Math.abs(value) < 10 ? 2 : 1);
  return joined({ number: decimal(value, digits), unit });
}

/** Times as the clock on the wall of the site shows them, wherever the reader is. */
export class Clock {
  constructor(zone) {
    this.zone = zone;
    const format = (options) => new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options });
    this.formats = {
      time: format({ hour: "2-digit", minute: "2-digit" }),
      moment: format({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
      day: format({ weekday: "short", day: "numeric", month: "short" }),
      weekday: format({ weekday: "short", day: "numeric" }),
      date: format({ day: "numeric", month: "short" }),
      month: format({ month: "short" }),
      monthYear: format({ month: "long", year: "numeric" }),
    };
    this.wall = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone,
      hour: "2-digit",
      minute: "2-digit",
      hourCycle: "h23",
    });
    this.sorted = new Intl.DateTimeFormat("en-CA", {
      timeZone: zone,
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
    });
  }

  /** A time as `time`, `moment`, `day`, … from seconds since 1970. */
  say(style, seconds) {
    return this.formats[style].format(seconds * 1000);
  }

  /** Does a day begin at this instant? */
  isMidnight(seconds) {
    return this.wall.format(seconds * 1000) === "00:00";
  }

  /** The local date as 2026-11-28. */
  date(seconds) {
    return this.sorted.format(seconds * 1000);
  }
}

function joined({ number, unit }) {
  return unit ? `${number}\u00a0${unit}` : number;
}
