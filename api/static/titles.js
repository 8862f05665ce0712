// What people call a device: the name of the appliance where the configuration has one, else its own.

const titles = new Map();

/** Learn the titles that the api lists. */
export function learn(devices) {
  for (const { source, device, title } of devices) {
    if (title) titles.set(`${source}/${device}`, title);
  }
}

/** The title of a device. */
export function titleOf(source, device) {
  return titles.get(`${source}/${device}`) ?? device;
}
