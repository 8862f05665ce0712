// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An SPI bus with an MCP3008 behind each of two chip selects, for tests in a virtual machine.
 *
 * Bit-exact as Microchip's DS21295D, section 5 has it: chip select starts anew; the first 1 on DIN is the start bit,
 * then come SGL/DIFF, D2, D1, D0; one clock to sample, a null bit, ten bits MSB first, then the same LSB first, zeros.
 * /sys/devices/platform/spi-mock/input takes "channel level amplitude millihertz": codes of 0 to 1023, and a sine.
 */
#include <linux/bug.h>
#include <linux/fixp-arith.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/spi/spi.h>

static struct platform_device *place;
static int level[8], amplitude[8], millihertz[8];

struct shift { /* what one chip has in mind between two edges of chip select */
	int clocks; /* since the start bit; 0 while it has not come */
	int setting;
	int code;
};

static int input_code(int channel)
{
	u64 at_ns = ktime_get_ns();
	u64 period_ns;
	u32 left_ns;
	s64 sine;

	if (!millihertz[channel])
		return level[channel];
	period_ns = div_u64(1000000000000ULL, millihertz[channel]);
	div_u64_rem(at_ns, (u32)period_ns, &left_ns); /* below 4.3 s, so above 233 mHz */
	sine = fixp_sin32_rad((u32)div_u64((u64)left_ns << 16, (u32)period_ns), 1 << 16);
	return level[channel] + (int)((sine * amplitude[channel]) >> 31);
}

static int converted(int setting)
{
	int channel = setting & 7;
	int code = input_code(channel);

	if (!(setting & 8))
		code -= input_code(channel ^ 1);
	return clamp(code, 0, 1023);
}

static int clock_once(struct shift *s, int din)
{
	if (!s->clocks) {
		s->clocks = din;
		return 1; /* DOUT floats; here it is pulled up */
	}
	s->clocks++;
	if (s->clocks <= 5)
		s->setting = s->setting << 1 | din;
	if (s->clocks <= 6) {
		if (s->clocks == 6)
			s->code = converted(s->setting);
		return 1;
	}
	if (s->clocks == 7)
		return 0; /* the null bit */
	if (s->clocks <= 17)
		return s->code >> (17 - s->clocks) & 1;
	if (s->clocks <= 26)
		return s->code >> (s->clocks - 17) & 1;
	return 0;
}

static int transfer(struct spi_controller *bus, struct spi_message *message)
{
	struct spi_transfer *part;
	struct shift s = {};

	list_for_each_entry(part, &message->transfers, transfer_list) {
		const u8 *tx = part->tx_buf;
		u8 *rx = part->rx_buf;
		unsigned int n;
		int bit;

		for (n = 0; n < part->len; n++) {
			u8 in = tx ? tx[n] : 0, out = 0;

			for (bit = 7; bit >= 0; bit--)
				out |= clock_once(&s, in >> bit & 1) << bit;
			if (rx)
				rx[n] = out;
		}
		message->actual_length += part->len;
		if (part->cs_change)
			s = (struct shift){};
	}
	message->status = 0;
	spi_finalize_current_message(bus);
	return 0;
}

static ssize_t input_store(struct device *device, struct device_attribute *attribute, const char *text, size_t size)
{
	int channel, to, swing, mhz;

	if (sscanf(text, "%d %d %d %d", &channel, &to, &swing, &mhz) != 4 || channel < 0 || channel > 7)
		return -EINVAL;
	if (mhz < 0 || (mhz && mhz < 250))
		return -EINVAL;
	level[channel] = to;
	amplitude[channel] = swing;
	millihertz[channel] = mhz;
	return size;
}
static DEVICE_ATTR_WO(input);

static int __init start(void)
{
	struct spi_board_info chip = { .modalias = "dh2228fv", .max_speed_hz = 10000000 };
	struct spi_controller *bus;
	int failed;

	place = platform_device_register_simple("spi-mock", -1, NULL, 0);
	if (IS_ERR(place))
		return PTR_ERR(place);
	bus = devm_spi_alloc_master(&place->dev, 0);
	if (!bus) {
		failed = -ENOMEM;
		goto gone;
	}
	bus->bus_num = 0;
	bus->num_chipselect = 2;
	bus->mode_bits = SPI_CPOL | SPI_CPHA;
	bus->bits_per_word_mask = SPI_BPW_MASK(8);
	bus->transfer_one_message = transfer;
	failed = devm_spi_register_controller(&place->dev, bus);
	if (failed)
		goto gone;
	for (chip.chip_select = 0; chip.chip_select < 2; chip.chip_select++)
		if (!spi_new_device(bus, &chip)) {
			failed = -ENODEV;
			goto gone;
		}
	failed = device_create_file(&place->dev, &dev_attr_input);
	if (failed)
		goto gone;
	return 0;
gone:
	platform_device_unregister(place);
	return failed;
}

static void __exit stop(void)
{
	platform_device_unregister(place);
}

module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("An MCP3008 for tests");
MODULE_LICENSE("GPL");
