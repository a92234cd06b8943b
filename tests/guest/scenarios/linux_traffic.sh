# Two cards back to back, Linux's own driver on both, the second in a namespace of its own. $1: the driver.
. /run/lib.sh
driver=$1

near=$(ls /sys/bus/pci/devices/0000:01:00.0/net)
far=$(ls /sys/bus/pci/devices/0000:02:00.0/net)
at_far() { ip netns exec far "$@"; }
carrier() { [ "$(cat /sys/class/net/"$near"/carrier)" = 1 ] && [ "$(at_far cat /sys/class/net/"$far"/carrier)" = 1 ]; }
listening() { at_far grep -qE ":$(printf %04X "$1") 0+:0000 0A" /proc/net/tcp /proc/net/tcp6; } # 0A: LISTEN
send() { # PORT FILE: over TCP, and what arrived is the same
	at_far nc -l -p "$1" >/run/tmp/got."$1" 0<>/run/tmp/never & # busybox's ends when its input does
	wait_for 10 listening "$1" && nc 10.0.0.2 "$1" <"$2" >/dev/null && wait $! &&
		[ "$(md5sum <"$2")" = "$(md5sum </run/tmp/got."$1")" ]
}
send_many() { # COUNT FILE
	jobs=
	for n in $(seq "$1"); do
		send $((6000 + n)) "$2" &
		jobs="$jobs $!"
	done
	for job in $jobs; do wait "$job" || return 1; done
}
statistic() { ethtool -S "$near" | sed -n "s/^ *$1: //p"; }
queues_used() { ethtool -S "$near" | grep -cE '^ *rx_queue_[0-9]+_packets: [1-9]'; }

mkfifo /run/tmp/never
ip netns add far
ip link set "$far" netns far
ip addr add 10.0.0.1/24 dev "$near"
ip -n far addr add 10.0.0.2/24 dev "$far"
ip link set "$near" up
ip -n far link set "$far" up
ip -n far link set lo up
check link_comes wait_for 20 carrier
value speed "$(cat /sys/class/net/"$near"/speed)"
ethtool "$near"
check pings ping -c 5 -i 0.2 -W 2 10.0.0.2
check pings_of_a_full_frame ping -c 3 -i 0.2 -W 2 -M do -s 1472 10.0.0.2

head -c 4194304 /dev/urandom >/run/tmp/data
head -c 300000 /dev/urandom >/run/tmp/part
ethtool -k "$near" | grep -E 'segmentation|checksum|vlan'
check tso_is_on sh -c "/usr/sbin/ethtool -k $near | grep -q 'tcp-segmentation-offload: on'"
check tcp_with_tso send 5001 /run/tmp/data
check tso_can_be_turned_off ethtool -K "$near" tso off
check tcp_without_tso send 5002 /run/tmp/part
check tso_can_be_turned_on ethtool -K "$near" tso on
check twelve_flows send_many 12 /run/tmp/part
value queues "$(ls -d /sys/class/net/"$near"/queues/rx-* | wc -l)"
value queues_used "$(queues_used)"

vlan() {
	ip link add link "$near" name v42 type vlan id 42 && ip addr add 10.42.0.1/24 dev v42 && ip link set v42 up &&
		ip -n far link add link "$far" name v42 type vlan id 42 && ip -n far addr add 10.42.0.2/24 dev v42 &&
		ip -n far link set v42 up && ping -c 3 -i 0.2 -W 2 10.42.0.2
}
check vlan_pings vlan

jumbo() {
	ip link set "$near" mtu 9000 && ip -n far link set "$far" mtu 9000 && wait_for 20 carrier &&
		wait_for 5 ping -c 1 -W 1 10.0.0.2 && ping -c 3 -i 0.2 -W 2 -M do -s 8972 10.0.0.2
}
check jumbo_pings jumbo
check tcp_with_jumbo_frames send 5003 /run/tmp/data

again() { ip link set "$near" down && ip link set "$near" up && wait_for 20 carrier && wait_for 5 ping -c 1 -W 1 10.0.0.2; }
check down_and_up again
ethtool -S "$near" | grep -v ': 0$'
value rx_errors "$(statistic rx_errors)"
value tx_errors "$(statistic tx_errors)"
value rx_csum_errors "$(statistic rx_csum_offload_errors)"
value tx_timeouts "$(statistic tx_timeout_count)"

module_again() {
	ip netns del far && wait_for 5 [ -e /sys/bus/pci/devices/0000:02:00.0/net ] && rmmod "$driver" &&
		insmod /run/modules/"$driver".ko && ip link set "$(ls /sys/bus/pci/devices/0000:01:00.0/net)" up &&
		ip link set "$(ls /sys/bus/pci/devices/0000:02:00.0/net)" up &&
		wait_for 20 grep -q 1 "/sys/class/net/$(ls /sys/bus/pci/devices/0000:01:00.0/net)/carrier"
}
check driver_unloads_and_loads module_again
