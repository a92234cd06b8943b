#!/bin/busybox sh
# First process of the guest: mounts, modules, one scenario, power off. Console: ttyS0; what the test reads: ttyS1.
# /settings (made by initramfs.py) says: python, repository, package, extension, build, arguments, modules.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /usr/bin /usr/sbin /sbin /guest /host
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1

. /settings
for module in $modules; do
	insmod "/modules/$module.ko" || echo "fail module_$module: cannot be loaded" >&3
done
echo "value init $(cut -d' ' -f1 /proc/uptime)" >&3

# mount_root TAG DIR: a folder of the host, read-only, as a root of our own.
mount_root() {
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro "$1" "$2" || return 1
	for each in proc sys dev; do mount -o rbind "/$each" "$2/$each"; done
	mount -t tmpfs tmpfs "$2/run"
	mkdir "$2/run/tmp"
	case "$repository$python" in
	/tmp/*) ;; # what is tested lies there
	*) mount -t tmpfs tmpfs "$2/tmp" ;;
	esac
}

ip link set lo up
status=1
if [ -n "$python" ]; then
	# The host's own root and the tests' own Python. What was built is used as it is: nothing is compiled in here.
	mount_root host /host && mkdir /host/run/package && cp -a "/host$package" /host/run/package/ &&
		cp "/host$extension" /host/run/package/ixroute/ && TMPDIR=/run/tmp \
		MESONPY_EDITABLE_SKIP="$build" PYTHONPATH="/run/package:$repository/tests" PATH="$(dirname "$python"):$PATH" \
		chroot /host "$python" "$repository/$scenario" $arguments </dev/null
	status=$?
else
	mount_root root /guest && mkdir /guest/run/bin && /bin/busybox --install -s /guest/run/bin &&
		cp /scenario /lib.sh /guest/run/ && { [ ! -d /modules ] || cp -r /modules /guest/run/; } &&
		PATH="/usr/sbin:/usr/bin:/run/bin" chroot /guest /usr/bin/busybox sh /run/scenario $arguments </dev/null
	status=$?
fi
echo "end $status" >&3
poweroff -f
