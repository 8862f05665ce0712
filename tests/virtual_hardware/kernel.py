"""Debian's kernel for the virtual machine: fetched, unpacked, given three modules, put into an initramfs."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# What the guest loads, each with what it depends on. The rest of what we need is built into Debian's kernel.
_MODULES = ("virtio_pci", "9p", "9pnet_virtio", "configfs", "i2c-dev", "xhci_pci", "ftdi_sio")
_OURS = ("gpio-sim", "spi-mock", "i2c-mock")
_SOURCES = ("drivers/gpio/gpio-sim.c", "drivers/gpio/gpiolib.h", "kernel/irq/irq_sim.c")


class Missing(Exception):  # noqa: N818 - a state of this machine
    """Something that this machine does not have: what, and how to get it."""


@dataclass(frozen=True)
class Kernel:
    """One version of Debian's kernel below `folder`."""

    folder: Path
    abi: str  # 6.1.0-56-amd64
    version: str  # of the packages, 6.1.192-2

    @property
    def image(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def _unpacked(self) -> Path:
        return self.folder / "unpacked"

    @property
    def _built(self) -> Path:
        return self.folder / "modules"

    def fetch(self) -> None:
        """Download what is not there yet, and unpack it; none of it is installed."""
        done = self.folder / ".fetched"
        if done.exists():
            return
        packages = self.folder / "packages"
        shutil.rmtree(self._unpacked, ignore_errors=True)
        packages.mkdir(parents=True, exist_ok=True)
        series = ".".join(self.version.split(".")[:2])
        common = self.abi.rpartition("-")[0] + "-common"
        wanted = [f"linux-image-{self.abi}", f"linux-headers-{self.abi}", f"linux-headers-{common}"]
        wanted += [f"linux-kbuild-{series}", f"linux-source-{series}"]
        names = [f"{name}={self.version}" for name in wanted] + ["busybox-static"]
        fetched = _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names], packages)
        if fetched.returncode:
            raise Missing(f"the kernel's packages cannot be fetched: {_last(fetched.stderr)}; try: apt-get update")
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, self._unpacked], check=True)
        archive = self._unpacked / "usr/src" / f"linux-source-{series}.tar.xz"
        with tarfile.open(archive) as sources:
            for member in sources:
                inner = member.name.partition("/")[2]
                if inner in _SOURCES:
                    (self.folder / "sources").mkdir(exist_ok=True)
                    data = sources.extractfile(member)
                    assert data is not None
                    (self.folder / "sources" / Path(inner).name).write_bytes(data.read())
        archive.unlink()
        shutil.rmtree(packages)
        self._write_image()
        done.touch()

    def _write_image(self) -> None:
        """Take the kernel proper out of its self-extracting file, which would take seconds of emulation.

        Documentation/arch/x86/boot.rst of the kernel: payload_offset and payload_length count from the protected-mode
        code, which follows `setup_sects` + 1 sectors.
        """
        data = (self._unpacked / "boot" / f"vmlinuz-{self.abi}").read_bytes()
        setup_sectors = data[0x1F1] or 4
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = (setup_sectors + 1) * 512 + offset
        self.image.write_bytes(lzma.LZMADecompressor().decompress(data[start : start + length]))

    def build_modules(self) -> None:
        """Build gpio-sim and our own two, anew if one of our files is newer."""
        ours = sorted((HERE / "modules").iterdir())
        targets = [self._built / f"{name}.ko" for name in _OURS]
        newest = max(file.stat().st_mtime for file in ours)
        if all(target.exists() and target.stat().st_mtime > newest for target in targets):
            return
        shutil.rmtree(self._built, ignore_errors=True)
        shutil.copytree(HERE / "modules", self._built)
        for name in _SOURCES:
            source = self.folder / "sources" / Path(name).name
            shutil.copy(source, self._built / source.name.replace("gpio-sim.c", "gpio_sim.c"))
        simulated = self._built / "irq_sim.c"
        # The kernel does not export irq_to_desc() to modules, and built in these symbols would be exported.
        text = simulated.read_text().replace("handle_simple_irq(irq_to_desc(", "generic_handle_irq((")
        simulated.write_text(re.sub(r"^EXPORT_SYMBOL.*\n", "", text, flags=re.MULTILINE))
        headers = self._unpacked / "usr/src" / f"linux-headers-{self.abi}"
        common = self._unpacked / "usr/src" / f"linux-headers-{self.abi.rpartition('-')[0]}-common"
        (headers / "Makefile").write_text(f"include {common}/Makefile\n")
        compiler = next((name for name in ("gcc-12", "gcc") if shutil.which(name)), "gcc")
        built = _run(["make", "-s", "-C", str(headers), f"M={self._built}", f"CC={compiler}", "modules"], self._built)
        if built.returncode:
            raise RuntimeError(f"the modules cannot be built:\n{built.stdout}{built.stderr}")

    def make_initramfs(self) -> None:
        """Pack busybox, the modules in the order in which they load, and `init`."""
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for name in ("bin", "proc", "sys", "dev", "mnt", "modules"):
            (tree / name).mkdir(parents=True)
        shutil.copy(self._unpacked / "bin/busybox", tree / "bin")
        (tree / "bin/sh").symlink_to("busybox")
        order = [*self._with_dependencies(_MODULES), *(self._built / f"{name}.ko" for name in _OURS)]
        for module in order:
            shutil.copy(module, tree / "modules")
        (tree / "modules/order").write_text("".join(f"{module.name}\n" for module in order))
        shutil.copy(HERE / "init.sh", tree / "init")
        (tree / "init").chmod(0o755)
        names = b"\0".join(str(path.relative_to(tree)).encode() for path in sorted(tree.rglob("*")))
        packed = subprocess.run(
            ["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"],
            cwd=tree,
            input=names,
            capture_output=True,
            check=True,
        )
        self.initramfs.write_bytes(packed.stdout)

    def _with_dependencies(self, names: tuple[str, ...]) -> list[Path]:
        """Return the files of modules, each behind those it depends on, as their own `depends=` has it."""
        files = {
            file.stem.replace("-", "_"): file for file in (self._unpacked / "lib/modules" / self.abi).rglob("*.ko")
        }
        order: list[Path] = []

        def add(name: str) -> None:
            file = files.get(name.replace("-", "_"))
            if file is None or file in order:
                return  # built into the kernel
            if found := re.search(rb"\0depends=([^\0]*)\0", file.read_bytes()):
                for needed in filter(None, found[1].decode().split(",")):
                    add(needed)
            order.append(file)

        for name in names:
            add(name)
        return order


def newest_kernel(build: Path) -> Kernel:
    """Return the kernel that Debian's linux-image-amd64 means now, or the one that is there where nobody can ask."""
    asked = _run(["apt-cache", "show", "linux-image-amd64"], Path("/"))
    found = re.search(r"^Depends: linux-image-(\S+) \(= (\S+)\)", asked.stdout, re.MULTILINE)
    if not found:
        raise Missing("apt knows no linux-image-amd64; on Debian for amd64 try: apt-get update")
    return Kernel(build / found[2], found[1], found[2])


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no word why"])[-1]
