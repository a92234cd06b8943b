# For scenarios in shell: `. /run/lib.sh`. Each says what held; the test reads it.

# busybox prefers its own; these are Debian's.
ip() { /usr/bin/ip "$@"; }
ping() { /usr/bin/ping "$@"; }
ethtool() { /usr/sbin/ethtool "$@"; }

# check NAME COMMAND…: ok when the command succeeds; its output is in the log.
check() {
	name=$1
	shift
	if "$@" >/run/check.log 2>&1; then
		echo "ok $name" >&3
	else
		echo "fail $name: $* (status $?): $(tail -n 5 /run/check.log | tr '\n' '|')" >&3
	fi
	echo "--- $name: $*" && cat /run/check.log
}

# value NAME TEXT…: for the test to judge.
value() {
	name=$1
	shift
	echo "value $name $*" >&3
	echo "--- $name = $*"
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
	end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		sleep 0.2
	done
}
