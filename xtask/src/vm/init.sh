#!/bin/busybox sh
# The first program of a virtual machine: makes the root file system of the machine outside its own, read-only with
# all that is written kept in memory, and goes on there.
B=/bin/busybox
fail() {
    echo "rsip-vm: $*"
    $B poweroff -f
}
$B mkdir -p /proc /sys /dev /outside /memory /root
$B mount -t proc proc /proc && $B mount -t sysfs sysfs /sys && $B mount -t devtmpfs dev /dev || fail "no /proc, /sys or /dev"
for module in /modules/*.ko; do
    [ -e "$module" ] && { $B insmod "$module" || fail "cannot load $module"; }
done
. /settings
$B mount -t virtiofs -o ro root /outside || fail "cannot mount the file system of the machine outside"
$B mount -t tmpfs -o size=75% memory /memory || fail "no memory for what is written"
$B mkdir /memory/upper /memory/work
$B mount -t overlay -o lowerdir=/outside,upperdir=/memory/upper,workdir=/memory/work root /root || fail "no overlay"
for place in proc sys dev; do
    $B mount --move /$place /root/$place || fail "no /$place in the root file system"
done
# What runs outside does not run here.
$B mount -t tmpfs run /root/run || fail "no /run"
$B mkdir -p /root/run/netns /root/run/lock /root/run/rsip-vm /root/lib/modules
$B cp /bin/busybox /guest /settings /root/run/rsip-vm/
$B mount --bind "/root$MODULES" /root/lib/modules || fail "no modules at $MODULES"
exec $B switch_root /root /run/rsip-vm/busybox sh /run/rsip-vm/guest
