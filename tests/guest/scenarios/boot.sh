# The guest itself: its modules, the tools, and what QEMU shows on the bus.
. /run/lib.sh
check ip_runs ip -V
check ping_runs ping -V
check ethtool_runs ethtool --version
check loopback_answers ping -c 1 -W 2 127.0.0.1
value kernel "$(uname -r)"
value devices "$(ls /sys/bus/pci/devices | wc -l)"
for device in /sys/bus/pci/devices/*; do
	echo "${device##*/} $(cat $device/vendor):$(cat $device/device)"
done
