#!/bin/sh
# The first process of the virtual machine: loads the modules, has the host's files as its root, runs the tests.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
echo "wattherd: the kernel runs after $($b cut -d ' ' -f 1 /proc/uptime) s"
for module in $($b cat /modules/order); do $b insmod "/modules/$module" || echo "wattherd: $module cannot be loaded"; done
share() { $b mount -t 9p -o "trans=virtio,version=9p2000.L,cache=loose,msize=524288,$3" "$1" "$2"; }
share host /mnt ro || { echo "wattherd: no root file system"; $b poweroff -f; }
for folder in proc sys dev; do $b mount --move "/$folder" "/mnt/$folder"; done
$b mount -t tmpfs tmp /mnt/tmp
$b mount -t tmpfs run /mnt/run
$b mount -t configfs configfs /mnt/sys/kernel/config
$b mkdir -p /mnt/dev/pts /mnt/dev/shm /mnt/run/results
$b mount -t devpts devpts /mnt/dev/pts
$b mount -t tmpfs shm /mnt/dev/shm
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 results /mnt/run/results
house=$($b sed -n 's/.*house=\([^ ]*\).*/\1/p' /mnt/proc/cmdline)
python=$($b sed -n 's/.*python=\([^ ]*\).*/\1/p' /mnt/proc/cmdline)
# The house may lie below a folder that is a new one in here.
[ -d "/mnt$house" ] || { $b mkdir -p "/mnt$house"; share house "/mnt$house" ro; }
$b ip link set lo up
export HOME=/tmp PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
# What pytest finds by itself takes seconds to import in here.
export WATTHERD_VIRTUAL_HARDWARE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 LANG=C.UTF-8
$b chroot /mnt /bin/sh -c "cd '$house' && exec '$python' -m tests.virtual_hardware.guest"
$b sync
$b poweroff -f
