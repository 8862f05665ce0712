// One colour to a device, the same in every chart and table, in the light and in the dark.

/** As many as can be told apart; the stylesheet has --c1 to --c7. Whoever comes later shares the grey of "others". */
export const DISTINCT = 7;

const chosen = new Map();

/** Give each channel a colour, in this order; one that has a colour already keeps it. */
export function assign(keys) {
  for (const key of keys) {
    if (!chosen.has(key)) chosen.set(key, chosen.size < DISTINCT ? `c${chosen.size + 1}` : "others");
  }
}

/** The name of a channel's colour: c1 to c7, sun for what generates, grid for the meter of the house, or others. */
export function colourOf(key, role = "part") {
  if (role === "grid") return "grid";
  if (role === "generation") return "sun";
  return chosen.get(key) ?? "others";
}

/** The colours of the stylesheet as it counts now. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}
