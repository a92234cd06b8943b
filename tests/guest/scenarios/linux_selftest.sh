# One card of two back to back, looked at with ethtool: identity, registers, EEPROM, module, statistics, self test.
. /run/lib.sh
near=$(ls /sys/bus/pci/devices/0000:01:00.0/net)
far=$(ls /sys/bus/pci/devices/0000:02:00.0/net)
carrier() { [ "$(cat /sys/class/net/"$near"/carrier)" = 1 ] && [ "$(cat /sys/class/net/"$far"/carrier)" = 1 ]; }

ip link set "$near" up
ip link set "$far" up
check link_comes wait_for 20 carrier
value mac "$(cat /sys/class/net/"$near"/address)"
value driver "$(ethtool -i "$near" | sed -n 's/^driver: //p')"
value firmware "$(ethtool -i "$near" | sed -n 's/^firmware-version: //p')"
check identity ethtool "$near"
ethtool -d "$near" >/run/tmp/registers # long
check registers head -n 30 /run/tmp/registers
value registers_lines "$(wc -l </run/tmp/registers)"
check statistics ethtool -S "$near"
value statistics_lines "$(wc -l </run/check.log)"
check eeprom ethtool -e "$near" length 256
check module ethtool -m "$near"
value module "$(sed -n 's/^\tIdentifier *: //p' /run/check.log)"
check coalescing ethtool -C "$near" rx-usecs 50
check rings ethtool -G "$near" rx 1024 tx 1024
check link_comes_after_new_rings wait_for 20 carrier
check channels ethtool -l "$near"
check indirection ethtool -x "$near"
check pause ethtool -a "$near"
check blink timeout 10 ethtool -p "$near" 1
check self_test_online ethtool -t "$near" online
check link_is_back wait_for 20 carrier
check self_test_offline ethtool -t "$near" offline
check link_comes_after_the_test wait_for 20 carrier
