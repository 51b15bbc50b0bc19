# Runs in a virtual machine what comes in over the first serial line: on each line a limit in seconds and a command.
# Its output goes back, and a line with $MARK and its exit code.
B=/run/rsip-vm/busybox
. /run/rsip-vm/settings
if [ "$1" != work ]; then
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
    # The kernel makes this one when the module is there, which comes when this one is used.
    $B mkdir -p /dev/pts /dev/shm /dev/net
    [ -e /dev/net/tun ] || $B mknod /dev/net/tun c 10 200
    $B mount -t devpts devpts /dev/pts
    $B mount -t tmpfs shm /dev/shm
    $B mount -t cgroup2 cgroup2 /sys/fs/cgroup
    $B mount -t bpf bpf /sys/fs/bpf
    $B mount -t tracefs tracefs /sys/kernel/tracing
    ip link set lo up
    $B setsid $B sh "$0" work </dev/ttyS0 >/dev/ttyS0 2>&1 &
    # Takes leave of all whose parents are gone, too.
    wait $!
    $B poweroff -f
fi
$B stty raw -echo
echo "$MARK ready"
while read -r limit command; do
    # By their places: busybox would take its own.
    /usr/bin/env timeout -k 5 "$limit" /bin/sh -c "$command" </dev/null
    code=$?
    echo
    echo "$MARK end $code"
done
