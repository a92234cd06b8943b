# Two cards back to back, Linux's own driver on both, the second in a namespace of its own: pings, down and up, pings.
. /run/lib.sh

near=$(ls /sys/bus/pci/devices/0000:01:00.0/net)
far=$(ls /sys/bus/pci/devices/0000:02:00.0/net)
at_far() { ip netns exec far "$@"; }
carrier() { [ "$(cat /sys/class/net/"$near"/carrier)" = 1 ] && [ "$(at_far cat /sys/class/net/"$far"/carrier)" = 1 ]; }

ip netns add far
ip link set "$far" netns far
ip addr add 10.0.0.1/24 dev "$near"
ip -n far addr add 10.0.0.2/24 dev "$far"
ip link set "$near" up
ip -n far link set "$far" up
check link_comes wait_for 20 carrier
check pings ping -c 20 -i 0.05 -W 2 10.0.0.2
ip link set "$near" down
ip link set "$near" up
check link_comes_again wait_for 20 carrier
check pings_again ping -c 20 -i 0.05 -W 2 10.0.0.2
