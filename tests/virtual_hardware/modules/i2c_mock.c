// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An I2C bus with INA219 chips at 0x40 and 0x41, for tests in a virtual machine; it has no other address.
 *
 * As TI's SBOS448 has it: a pointer, 16-bit registers with the high byte first, a conversion that takes its time after
 * each write of the configuration, a ready flag that reading the power clears. /sys/devices/platform/i2c-mock/measured
 * takes "address shunt_10uv bus_4mv" (what lies at the pins); /sys/devices/platform/i2c-mock/fail takes an errno that
 * every transfer then ends with, 0 for none.
 */
#include <linux/i2c.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/platform_device.h>

enum { CONFIG, SHUNT, BUS, POWER, CURRENT, CALIBRATION, REGISTERS };

struct ina219 {
	u16 registers[REGISTERS];
	u8 pointer;
	bool ready, converting;
	u64 ready_at_ns;
	int shunt_10uv, bus_4mv;
};

static struct platform_device *place;
static struct i2c_adapter bus;
static struct ina219 chips[2];
static int fail;

static u64 conversion_ns(u16 setting)
{
	static const u64 fast_ns[] = { 84000, 148000, 276000, 532000 };

	return setting & 8 ? 532000ULL << (setting & 7) : fast_ns[setting & 3];
}

static void begin(struct ina219 *chip)
{
	u16 config = chip->registers[CONFIG];

	chip->ready = false;
	chip->converting = (config & 7) != 0 && (config & 7) != 4;
	chip->ready_at_ns = ktime_get_ns() + conversion_ns(config >> 7 & 15) + conversion_ns(config >> 3 & 15);
}

static void reset(struct ina219 *chip)
{
	memset(chip->registers, 0, sizeof(chip->registers));
	chip->registers[CONFIG] = 0x399f;
	begin(chip);
}

static void convert(struct ina219 *chip)
{
	u16 config = chip->registers[CONFIG];
	int ends = 4000 << (config >> 11 & 3), shunt, current_lsb;
	bool overflow;

	if (!chip->converting || ktime_get_ns() < chip->ready_at_ns)
		return;
	shunt = clamp(chip->shunt_10uv, -ends, ends);
	current_lsb = shunt * chip->registers[CALIBRATION] / 4096;
	overflow = abs(current_lsb) > 0x7fff;
	chip->registers[SHUNT] = (u16)shunt;
	chip->registers[CURRENT] = (u16)current_lsb;
	chip->registers[POWER] = (u16)(abs(current_lsb) * chip->bus_4mv / 5000);
	chip->registers[BUS] = (u16)(chip->bus_4mv << 3 | overflow);
	chip->ready = true;
	chip->converting = config & 4;
	chip->ready_at_ns = ktime_get_ns() + conversion_ns(config >> 7 & 15) + conversion_ns(config >> 3 & 15);
}

static u16 read_register(struct ina219 *chip)
{
	u16 value;

	if (chip->pointer >= REGISTERS)
		return 0;
	convert(chip);
	value = chip->registers[chip->pointer];
	if (chip->pointer == BUS)
		value |= chip->ready << 1;
	if (chip->pointer == POWER)
		chip->ready = false;
	return value;
}

static void write_register(struct ina219 *chip, u8 number, u16 value)
{
	if (number == CONFIG && value & 0x8000)
		reset(chip);
	else if (number == CONFIG || number == CALIBRATION) {
		chip->registers[number] = number == CALIBRATION ? value & 0xfffe : value;
		if (number == CONFIG)
			begin(chip);
	}
}

static int transfer(struct i2c_adapter *adapter, struct i2c_msg *messages, int count)
{
	int n, byte;

	if (fail)
		return -fail;
	for (n = 0; n < count; n++) {
		struct i2c_msg *message = &messages[n];
		struct ina219 *chip;

		if (message->addr != 0x40 && message->addr != 0x41)
			return -EREMOTEIO; /* as the driver of a Raspberry Pi says that nobody acknowledged */
		chip = &chips[message->addr - 0x40];
		if (message->flags & I2C_M_RD) {
			u16 value = read_register(chip);

			for (byte = 0; byte < message->len; byte++)
				message->buf[byte] = byte == 0 ? value >> 8 : byte == 1 ? value & 0xff : 0xff;
		} else if (message->len) {
			chip->pointer = message->buf[0];
			if (message->len >= 3)
				write_register(chip, message->buf[0], message->buf[1] << 8 | message->buf[2]);
		}
	}
	return count;
}

static u32 abilities(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm algorithm = { .master_xfer = transfer, .functionality = abilities };

static ssize_t measured_store(struct device *device, struct device_attribute *attribute, const char *text, size_t size)
{
	int address, shunt, volts;

	if (sscanf(text, "%i %d %d", &address, &shunt, &volts) != 3 || address < 0x40 || address > 0x41)
		return -EINVAL;
	chips[address - 0x40].shunt_10uv = shunt;
	chips[address - 0x40].bus_4mv = clamp(volts, 0, 8000);
	return size;
}
static DEVICE_ATTR_WO(measured);

static ssize_t fail_store(struct device *device, struct device_attribute *attribute, const char *text, size_t size)
{
	return kstrtoint(text, 0, &fail) ? -EINVAL : size;
}
static DEVICE_ATTR_WO(fail);

/* The registers as after a start: the supply of all chips was away for a moment. */
static ssize_t brown_out_store(struct device *device, struct device_attribute *attribute, const char *text, size_t size)
{
	reset(&chips[0]);
	reset(&chips[1]);
	return size;
}
static DEVICE_ATTR_WO(brown_out);

static struct attribute *mock_attrs[] = {
	&dev_attr_measured.attr, &dev_attr_fail.attr, &dev_attr_brown_out.attr, NULL
};
ATTRIBUTE_GROUPS(mock);

static int __init start(void)
{
	int failed;

	place = platform_device_register_simple("i2c-mock", -1, NULL, 0);
	if (IS_ERR(place))
		return PTR_ERR(place);
	reset(&chips[0]);
	reset(&chips[1]);
	bus.owner = THIS_MODULE;
	bus.algo = &algorithm;
	bus.dev.parent = &place->dev;
	bus.nr = 1; /* as the one on the pins of a Raspberry Pi */
	strscpy(bus.name, "i2c-mock", sizeof(bus.name));
	failed = i2c_add_numbered_adapter(&bus);
	if (!failed)
		failed = sysfs_create_groups(&place->dev.kobj, mock_groups);
	if (failed)
		platform_device_unregister(place);
	return failed;
}

static void __exit stop(void)
{
	sysfs_remove_groups(&place->dev.kobj, mock_groups);
	i2c_del_adapter(&bus);
	platform_device_unregister(place);
}

module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("Two INA219 for tests");
MODULE_LICENSE("GPL");
