# DPDK drives the first card from user space, through vfio-pci and behind the IOMMU, and answers pings; Linux asks, by
# the second card. Cards are cabled to each other.
. /run/lib.sh
card=0000:01:00.0
near=$(ls /sys/bus/pci/devices/0000:02:00.0/net)
mac=$(cat /sys/bus/pci/devices/$card/net/*/address)

take() {
	echo vfio-pci >/sys/bus/pci/devices/$card/driver_override && echo $card >/sys/bus/pci/devices/$card/driver/unbind &&
		echo $card >/sys/bus/pci/drivers_probe && [ "$(basename "$(readlink /sys/bus/pci/devices/$card/driver)")" = vfio-pci ]
}
check vfio_takes_the_card take

mkfifo /run/tmp/never
/usr/bin/dpdk-testpmd -l 0-1 -n 1 --in-memory --no-telemetry -m 64 -a $card -- --forward-mode=icmpecho --auto-start \
	--total-num-mbufs=4096 --stats-period=1 >/run/tmp/testpmd 2>&1 0<>/run/tmp/never &
testpmd=$!
ip addr add 10.0.0.1/24 dev "$near"
ip link set "$near" up
ip neigh add 10.0.0.2 lladdr "$mac" dev "$near"
check dpdk_starts wait_for 25 grep -q 'Press enter\|Port statistics\|NIC statistics' /run/tmp/testpmd
cat /run/tmp/testpmd
check link_comes wait_for 20 grep -q 1 "/sys/class/net/$near/carrier"
check first_ping wait_for 20 ping -c 1 -W 1 10.0.0.2
check pings ping -c 20 -i 0.05 -W 2 10.0.0.2
check large_pings ping -c 5 -i 0.05 -W 2 -s 1472 -M do 10.0.0.2
kill -INT $testpmd
wait $testpmd
value dpdk_ended_with $?
grep -v '^ *$' /run/tmp/testpmd | grep -iE 'EAL|error|warn|port 0|link|PMD|RX-p|TX-p|cannot|fail' | head -60
value dpdk_complaints "$(grep -cE 'EAL: (Error|Cannot)|PANIC|[Ff]ailed' /run/tmp/testpmd)"
