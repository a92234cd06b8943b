"""Cards go from the kernel's driver to vfio-pci and back: the commands, what they refuse, restore_driver.

Two igb cards at 0000:01:00.0 and 0000:02:00.0, whose driver is loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess

from ixroute.cli import main as ixroute
from ixroute.driver.pci import PciBus
from ixroute.driver.transport import TransportError
from ixroute.driver.vfio import VfioTransport
from lab.guest.inside import ok, value

FIRST, SECOND = "0000:01:00.0", "0000:02:00.0"


def run(*words: str) -> tuple[int, str, str]:
    """`ixroute WORDS`: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = ixroute(words)
    return code, out.getvalue().strip(), err.getvalue().strip()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def refusals(interface: str) -> None:
    """What is in use stays where it is."""
    ip("link", "set", interface, "up")
    code, _, err = run("bind", FIRST)
    ok("a_card_that_is_up_is_refused", code == 1 and f"interface {interface} is up" in err, err)
    ip("link", "set", interface, "down")
    ip("addr", "add", "192.0.2.1/24", "dev", interface)
    code, _, err = run("bind", FIRST)
    ok("a_card_with_an_address_is_refused", code == 1 and "192.0.2.1" in err, err)
    ok("it_is_still_the_kernels", PciBus().device(FIRST).driver == "igb")
    try:
        VfioTransport(FIRST)
    except TransportError as error:
        ok("a_card_of_the_kernels_is_no_transport", f"`ixroute bind {FIRST}`" in str(error), error)
    else:
        ok("a_card_of_the_kernels_is_no_transport", False, "it was opened")
    code, out, err = run("bind", "--force", FIRST)
    ok("force_takes_it_all_the_same", code == 0 and "vfio-pci has it now (before: igb)" in out, out + err)


def main() -> None:
    bus = PciBus()
    [interface] = bus.device(FIRST).interfaces
    value("interface", interface.name)
    refusals(interface.name)
    code, out, _ = run("devices", "-j")
    found = {device["address"]: device for device in json.loads(out)["devices"]}
    value("devices", out)
    ok(
        "devices_shows_both",
        code == 0 and [found[FIRST]["driver"], found[SECOND]["driver"]] == ["vfio-pci", "igb"],
    )
    ok("the_group_has_a_file", found[FIRST]["group_file"] == f"/{bus.device(FIRST).group_file}")
    print(run("devices")[1])
    transport = VfioTransport(FIRST)
    code, _, err = run("unbind", FIRST)
    ok("a_card_in_use_is_not_given_back", code == 1 and "a program drives a card of group" in err, err)
    transport.close()
    code, out, err = run("unbind", FIRST)
    ok("the_kernel_gets_it_back", code == 0 and f"igb has it, as {interface.name}" in out, out + err)
    code, out, err = run("bind", FIRST, SECOND)
    ok("both_are_bound", code == 0 and len(out.splitlines()) == 2, out + err)
    first, second = VfioTransport(FIRST, restore_driver=True), VfioTransport(SECOND)
    first.close()
    second.close()
    drivers = [bus.device(address).driver for address in (FIRST, SECOND)]
    ok("restore_driver_gives_back_that_card_only", drivers == ["igb", "vfio-pci"], str(drivers))
    code, out, err = run("bind", "--driver", "no-such-driver", FIRST)
    ok("a_driver_that_is_not_there_is_told", code == 1 and "has no driver no-such-driver" in err, err)
    ok("and_nothing_changed", bus.device(FIRST).driver == "igb")


if __name__ == "__main__":
    main()
