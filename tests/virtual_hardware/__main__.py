"""Boots a virtual machine with real kernel drivers, and runs the tests of this folder in it.

    python -m tests.virtual_hardware [ARGUMENT OF PYTEST …]

Debian's own kernel under QEMU's emulation (no KVM: it is the same everywhere), the root file system of this machine
read-only over 9p, and three modules built for it: the kernel's gpio-sim, and our own masters for SPI and I2C. What was
downloaded and built stays in build/virtual_hardware/<kernel>. Status: that of pytest in there; 77 if this machine lacks
what it takes, and then the reason is said.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.virtual_hardware.devices import PACKAGES
from tests.virtual_hardware.kernel import Kernel, Missing, newest_kernel
from tests.virtual_hardware.serial_line import serial_line

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "virtual_hardware"
NOT_HERE = 77
_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "apt-get": "a Debian system",
    "dpkg": "a Debian system",
    "gcc": "gcc",
    "make": "make",
    "cpio": "cpio",
    "bc": "bc",
    "xz": "xz-utils",
}
_BOOT_S = 120.0  # until the first line of our own; a quiet machine takes 2
_TESTS_S = 1200.0
_TRIES = 2


def main() -> int:
    try:
        kernel = ready()
    except Missing as missing:
        print(f"no virtual hardware: {missing}", file=sys.stderr)
        return NOT_HERE
    results = BUILD / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    (results / "arguments").write_text("\0".join(sys.argv[1:]))
    for last in (False, True)[-_TRIES:]:
        if boot(kernel, results) or last:
            break
        print("the virtual machine did not start; once more", file=sys.stderr)
    try:
        return int((results / "status").read_text())
    except (OSError, ValueError):
        print(f"the virtual machine ended without a result; what it said: {results / 'console'}", file=sys.stderr)
        return 1


def ready() -> Kernel:
    """Return a kernel that can be booted. Raises `Missing`, with the reason."""
    if lacking := sorted({package for program, package in _PROGRAMS.items() if not shutil.which(program)}):
        raise Missing(f"install: {' '.join(lacking)}")
    with step("kernel"):
        kernel = newest_kernel(BUILD)
        kernel.fetch()
    with step("modules"):
        kernel.build_modules()
    with step("packages"):
        install_packages()
    with step("start"):
        kernel.make_initramfs()
    return kernel


def install_packages() -> None:
    """Install what one test needs beside the locked packages, where nothing else finds it."""
    wanted = Path(__file__).with_name("rpi-lgpio.txt")
    done = PACKAGES / ".done"
    if done.exists() and done.stat().st_mtime > wanted.stat().st_mtime:
        return
    shutil.rmtree(PACKAGES, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes"]
    subprocess.run([*pip, "--target", PACKAGES, "-r", wanted], check=True)
    done.touch()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    begun_s = time.monotonic()
    yield
    print(f"{name:<10}{time.monotonic() - begun_s:>8.1f} s", flush=True)


def boot(kernel: Kernel, results: Path) -> bool:
    """Run the machine until it switches itself off; return whether it got as far as our first line."""
    console = results / "console"
    with step("machine"), serial_line(results) as line, console.open("wb") as log:
        machine = subprocess.Popen(
            command(kernel, results, line), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            return watched(machine, console)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
            machine.wait()


def watched(machine: subprocess.Popen[bytes], console: Path) -> bool:
    """Show what the console says from our first line on."""
    begun_s = time.monotonic()
    started = False
    shown = 0
    while machine.poll() is None or shown < console.stat().st_size:
        text = console.read_bytes()
        if not started and b"wattherd:" in text:
            started, shown = True, text.index(b"wattherd:")
        if started:
            sys.stdout.write(text[shown:].decode(errors="replace").replace("\r", ""))
            sys.stdout.flush()
            shown = len(text)
        elif machine.poll() is not None:
            return False
        if time.monotonic() - begun_s > (_TESTS_S if started else _BOOT_S):
            return started
        time.sleep(0.1)
    return started


def command(kernel: Kernel, results: Path, serial_socket: Path) -> list[str]:
    """q35, because microvm hangs on a busy host; one processor, so that gpio-sim merges no edges.

    On a busy host the kernel measures a wrong frequency of its time-stamp counter, and time in there ran seventeen
    times too fast: so it goes by the HPET.
    """
    shares = {"host": (Path("/"), ",readonly=on"), "house": (ROOT, ",readonly=on"), "results": (results, "")}
    arguments = [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initramfs)),
        "-append",
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=unstable clocksource=hpet random.trust_cpu=on "
        f"house={ROOT} python={sys.executable}",
        *("-device", "qemu-xhci,id=usb"),
        *("-chardev", f"socket,id=rs485,path={serial_socket}"),
        *("-device", "usb-serial,id=adapter,bus=usb.0,chardev=rs485"),
        *("-qmp", f"unix:{results / 'qmp'},server=on,wait=off"),
    ]
    for tag, (path, mode) in shares.items():
        arguments += ["-fsdev", f"local,id={tag},path={path},security_model=none{mode},multidevs=remap"]
        arguments += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
