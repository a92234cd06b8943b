"""The VFIO transport, on a kernel made up."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_fakes import BAR0_BYTES, DEVICE, SIBLING, FakeKernel, Machine, drop_vectors

from ixroute._dataplane import lib
from ixroute.driver import vfio_abi as abi
from ixroute.driver.dma import DmaBuffer
from ixroute.driver.transport import TransportError
from ixroute.driver.vfio import VfioTransport
from ixroute.driver.vfio_group import VfioContainer

COMMAND = 4


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.add()
    return machine


@pytest.fixture
def kernel(machine: Machine) -> Iterator[FakeKernel]:
    kernel = FakeKernel(machine)
    yield kernel
    drop_vectors(list(kernel.cards.values()))
    assert not [what for what in ("container", "group", "device") if kernel.open_descriptors(what)]


@pytest.fixture
def container(kernel: FakeKernel) -> VfioContainer:
    return VfioContainer(kernel)


@pytest.fixture
def buffer() -> Iterator[DmaBuffer]:
    buffer = DmaBuffer(8192, "off")
    yield buffer
    buffer.close()


def test_a_card_is_opened_by_its_group_and_has_bus_mastering_until_closed(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport("03:00.0", container)
    assert (card.kind, card.device) == ("vfio", DEVICE)
    assert kernel.said(abi.VFIO_GROUP_SET_CONTAINER) == [("dev/vfio/12",)]
    assert kernel.said(abi.VFIO_SET_IOMMU) == [(abi.VFIO_TYPE1V2_IOMMU,)]
    assert (card.config.read(0, 2), card.config.read(2, 2)) == (0x8086, 0x10FB)
    assert kernel.config(COMMAND, 2) == 0x0106
    watch = os.dup(next(fd for fd, at in kernel._at.items() if at[0] == "device"))
    card.close()
    card.close()
    assert struct.unpack("=H", os.pread(watch, 2, (7 << 24) + COMMAND)) == (0x0102,)
    os.close(watch)


def test_registers_are_read_and_written_where_the_card_has_them(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport(DEVICE, container)
    bar = card.map_bar(0)
    seen = kernel.registers()
    assert bar.size == BAR0_BYTES
    bar.write32(0x1FFFC, 0x1_DEADBEEF)
    assert seen[0x1FFFC:] == struct.pack("<I", 0xDEADBEEF)
    seen[8:12] = struct.pack("<I", 0x01020304)
    assert bar.read32(8) == 0x01020304
    for offset in (-4, 2, BAR0_BYTES, BAR0_BYTES - 2):
        with pytest.raises(ValueError, match="has no register"):
            bar.read32(offset)
    assert card.map_bar(0) is bar
    with pytest.raises(TransportError, match=r"0000:03:00.0: has no BAR 1"):
        card.map_bar(1)
    seen.close()
    card.close()
    with pytest.raises(TransportError, match="is closed"):
        bar.read32(0)


def test_a_bell_is_the_register_itself_and_is_refused_after_close(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport(DEVICE, container)
    bell = card.map_bar(0).bell(0x1018)
    assert (bell.event, bell.socket) == (-1, -1)
    assert lib.doorbell_ring(bell, 77) == 0
    seen = kernel.registers()
    assert seen[0x1018] == 77
    seen.close()
    card.close()
    assert lib.doorbell_ring(bell, 78) == -errno.EAGAIN
    assert bell.failed == 1


def test_what_cannot_be_mapped_is_reached_by_system_calls_but_has_no_bell(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    kernel.sparse = [(0, 0x4000), (0x8000, BAR0_BYTES - 0x8000)]  # a page of MSI-X table between them
    card = VfioTransport(DEVICE, container)
    bar = card.map_bar(0)
    for offset in (0x3FFC, 0x4000, 0x7FFC, 0x8000):
        bar.write32(offset, offset + 1)
        assert bar.read32(offset) == offset + 1
    seen = kernel.registers()
    assert [struct.unpack_from("<I", seen, at)[0] for at in (0x3FFC, 0x4000, 0x7FFC, 0x8000)] == [
        0x3FFD,
        0x4001,
        0x7FFD,
        0x8001,
    ]
    seen.close()
    bar.bell(0x3FFC)
    with pytest.raises(TransportError, match="register 0x4000 of BAR 0 cannot be mapped"):
        bar.bell(0x4000)
    card.close()


def test_a_bar_that_may_not_be_mapped_at_all_works_by_system_calls(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    kernel.mappable = False
    card = VfioTransport(DEVICE, container)
    card.map_bar(0).write32(0, 5)
    assert card.map_bar(0).read32(0) == 5
    card.close()


def test_all_vectors_are_set_in_one_call_each_with_its_own_event(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport(DEVICE, container)
    assert card.irq.count == 64
    events = card.irq.start(3)
    on = abi.VFIO_IRQ_SET_DATA_EVENTFD | abi.VFIO_IRQ_SET_ACTION_TRIGGER
    assert kernel.said(abi.VFIO_DEVICE_SET_IRQS) == [(on, 2, 0, 3, 3)]
    os.eventfd_write(kernel.cards[DEVICE].vectors[1], 1)
    readable, _, _ = select.select(events, [], [], 0)
    assert readable == [events[1]]
    with pytest.raises(ValueError, match=r"stop\(\) first"):
        card.irq.start(1)
    card.irq.stop()
    card.irq.stop()
    off = abi.VFIO_IRQ_SET_DATA_NONE | abi.VFIO_IRQ_SET_ACTION_TRIGGER
    assert kernel.said(abi.VFIO_DEVICE_SET_IRQS)[1:] == [(off, 2, 0, 0, 0)]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(events[0])
    for n in (0, 65):
        with pytest.raises(ValueError, match="the device has 64"):
            card.irq.start(n)
    card.close()


def test_too_few_interrupts_in_the_machine_are_an_error_that_names_how_many(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport(DEVICE, container)
    kernel.free_vectors = 2
    with pytest.raises(TransportError, match="has 2 interrupts left for it, 5 are wanted"):
        card.irq.start(5)
    assert len(card.irq.start(2)) == 2
    card.close()


def test_memory_is_mapped_inside_the_allowed_ranges_and_below_39_bits(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    kernel.ranges = [(0, 0x0FFF), (1 << 40, 1 << 50), (0xFEF00000, (1 << 57) - 1), (0x300000, 0x300FFF)]
    card = VfioTransport(DEVICE, container)
    mapping = card.dma_map(buffer)
    assert kernel.mapped == {mapping.base: (buffer.address, buffer.bytes)}
    assert 0xFEF00000 <= mapping.base < 1 << 39
    assert (mapping.pages, mapping.iova(4097)) == (None, mapping.base + 4097)
    card.dma_unmap(buffer)
    assert not kernel.mapped
    card.dma_unmap(buffer)
    card.close()


def test_a_kernel_that_tells_no_ranges_gets_addresses_below_the_interrupts_window(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    kernel.ranges = None
    card = VfioTransport(DEVICE, container)
    assert 0 < card.dma_map(buffer).base < 0xFEE00000
    card.close()


def test_memory_of_several_cards_is_mapped_once_and_counted(
    machine: Machine, kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    machine.add(SIBLING, group=13)
    first, second = VfioTransport(DEVICE, container), VfioTransport(SIBLING, container)
    assert kernel.said(abi.VFIO_GROUP_SET_CONTAINER) == [("dev/vfio/12",), ("dev/vfio/13",)]
    assert len(kernel.said(abi.VFIO_SET_IOMMU)) == 1
    assert kernel.open_descriptors("container") == ["dev/vfio/vfio"]
    assert first.dma_map(buffer) == second.dma_map(buffer)
    assert first.dma_map(buffer) == second.dma_map(buffer)
    assert len(kernel.said(abi.VFIO_IOMMU_MAP_DMA)) == 1
    second.dma_unmap(buffer)
    first.close()
    assert len(kernel.mapped) == 1
    second.dma_unmap(buffer)
    assert not kernel.mapped
    second.close()


def test_the_kernel_gets_cards_back_when_asked_once_their_group_is_free(
    machine: Machine, kernel: FakeKernel, container: VfioContainer
) -> None:
    machine.add(SIBLING)
    container.binder = machine.binder()
    first = VfioTransport(DEVICE, container, restore_driver=True)
    second = VfioTransport(SIBLING, container)
    first.close()
    assert machine.bus.device(DEVICE).driver == "vfio-pci"
    second.close()
    assert [machine.bus.device(address).driver for address in (DEVICE, SIBLING)] == ["ixgbe", "vfio-pci"]


def test_a_card_that_cannot_be_given_back_is_told_and_closing_goes_on(
    machine: Machine, kernel: FakeKernel, container: VfioContainer, caplog: pytest.LogCaptureFixture
) -> None:
    container.binder = machine.binder()
    machine.stuck.add(DEVICE)
    VfioTransport(DEVICE, container, restore_driver=True).close()
    assert "stays without a kernel driver: `ixroute unbind 0000:03:00.0`" in caplog.text


def test_two_functions_of_one_group_share_its_descriptor(
    machine: Machine, kernel: FakeKernel, container: VfioContainer
) -> None:
    machine.add(SIBLING)
    first, second = VfioTransport(DEVICE, container), VfioTransport(SIBLING, container)
    assert kernel.open_descriptors("group") == ["dev/vfio/12"]
    with pytest.raises(TransportError, match=r"0000:03:00.1: is already a port of this router"):
        VfioTransport(SIBLING, container)
    first.close()
    assert kernel.open_descriptors("group") == ["dev/vfio/12"]
    second.close()


def test_a_container_can_be_used_again_after_its_last_device_closed(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    for _ in range(2):
        card = VfioTransport(DEVICE, container)
        card.dma_map(buffer)
        card.close()
    assert len(kernel.said(abi.VFIO_SET_IOMMU)) == 2
    assert len(kernel.said(abi.VFIO_IOMMU_MAP_DMA)) == len(kernel.said(abi.VFIO_IOMMU_UNMAP_DMA)) == 2


def test_closing_stops_interrupts_then_dma_before_memory_is_unmapped(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    card = VfioTransport(DEVICE, container)
    card.map_bar(0)
    card.dma_map(buffer)
    card.irq.start(1)
    mastering: list[int] = []
    unmap = kernel._unmap
    kernel._unmap = lambda *a: mastering.append(kernel.config(COMMAND, 2) & 4) or unmap(*a)  # type: ignore[method-assign]
    card.close()
    assert [entry[0] for entry in kernel.log[-2:]] == [abi.VFIO_DEVICE_SET_IRQS, abi.VFIO_IOMMU_UNMAP_DMA]
    assert mastering == [0]


def test_reset_leaves_bus_mastering_on_and_is_false_for_a_device_that_has_none(
    kernel: FakeKernel, container: VfioContainer
) -> None:
    card = VfioTransport(DEVICE, container)
    assert card.reset()
    assert kernel.cards[DEVICE].resets == 1
    assert kernel.config(COMMAND, 2) & 6 == 6
    card.close()
    kernel.can_reset = False
    card = VfioTransport(DEVICE, container)
    assert not card.reset()
    card.close()
    with pytest.raises(TransportError, match="is closed"):
        card.reset()


def test_configuration_space_takes_fields_of_1_2_and_4_bytes_at_their_places(
    container: VfioContainer,
) -> None:
    card = VfioTransport(DEVICE, container)
    card.config.write(0x40, 4, 0x04030201)
    assert [card.config.read(0x40 + i, 1) for i in range(4)] == [1, 2, 3, 4]
    assert card.config.read(0x42, 2) == 0x0403
    for offset, size in ((0x41, 2), (0, 3), (-4, 4), (4096, 4)):
        with pytest.raises(ValueError, match="has no field"):
            card.config.read(offset, size)
    card.close()


ERRNO = {
    "no permission": ("dev/vfio/12", errno.EACCES, r"/dev/vfio/12: no permission \(it is .*70-ixroute.rules"),
    "in use": ("dev/vfio/12", errno.EBUSY, "/dev/vfio/12 is in use: another program"),
    "no group file": ("dev/vfio/12", errno.ENOENT, "no /dev/vfio/12"),
    "no container file": ("dev/vfio/vfio", errno.ENOENT, "no /dev/vfio/vfio: `modprobe vfio-pci`"),
    "no container permission": ("dev/vfio/vfio", errno.EACCES, "/dev/vfio/vfio: no permission"),
    "not VFIO": (abi.VFIO_GET_API_VERSION, errno.ENOTTY, "is not VFIO's"),
    "no remapping": (abi.VFIO_SET_IOMMU, errno.EPERM, "interrupt remapping"),
    "no container": (abi.VFIO_GROUP_SET_CONTAINER, errno.EINVAL, "does not join"),
    "no device": (abi.VFIO_GROUP_GET_DEVICE_FD, errno.ENODEV, "`ixroute bind 0000:03:00.0`"),
    "no info": (abi.VFIO_DEVICE_GET_INFO, errno.EIO, "does not describe it"),
    "no regions": (abi.VFIO_DEVICE_GET_REGION_INFO, errno.EIO, "does not describe region 7"),
    "no irqs": (abi.VFIO_DEVICE_GET_IRQ_INFO, errno.EIO, "does not describe its interrupts"),
    "no limits": (abi.VFIO_IOMMU_GET_INFO, errno.EIO, "the IOMMU's limits"),
}


@pytest.mark.parametrize(("where", "number", "message"), ERRNO.values(), ids=list(ERRNO))
def test_what_the_kernel_refuses_is_named_and_leaves_nothing_open(
    kernel: FakeKernel, container: VfioContainer, where: int | str, number: int, message: str
) -> None:
    kernel.errors[where] = number
    with pytest.raises(TransportError, match=message) as caught:
        VfioTransport(DEVICE, container)
    assert str(caught.value).startswith("0000:03:00.0: ")
    assert "\n" not in str(caught.value)
    kernel.errors.clear()
    VfioTransport(DEVICE, container).close()


def test_locked_memory_over_the_limit_names_the_limit(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    card = VfioTransport(DEVICE, container)
    kernel.errors[abi.VFIO_IOMMU_MAP_DMA] = errno.ENOMEM
    with pytest.raises(TransportError, match=r"RLIMIT_MEMLOCK\): LimitMEMLOCK=infinity"):
        card.dma_map(buffer)
    del kernel.errors[abi.VFIO_IOMMU_MAP_DMA]
    first = card.dma_map(buffer)
    assert first.base in kernel.mapped
    card.close()


def test_memory_in_smaller_pages_than_the_iommus_is_refused(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    kernel.page_sizes = 0x200000
    card = VfioTransport(DEVICE, container)
    with pytest.raises(TransportError, match="use huge pages"):
        card.dma_map(buffer)
    card.close()


def test_addresses_that_the_kernel_did_not_unmap_are_not_given_out_again(
    kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    card = VfioTransport(DEVICE, container)
    stuck = card.dma_map(buffer).base
    kernel.errors[abi.VFIO_IOMMU_UNMAP_DMA] = errno.EIO
    card.dma_unmap(buffer)
    assert card.dma_map(buffer).base != stuck
    card.close()


def test_a_group_with_a_card_of_the_kernels_names_it(machine: Machine, kernel: FakeKernel) -> None:
    machine.add(SIBLING, driver="ixgbe")
    machine.add("0000:02:00.0", driver="pcieport", class_code=0x060400, group=12)
    kernel.viable = False
    with pytest.raises(TransportError, match=r"group 12 is not viable: .*`ixroute bind 0000:03:00.1`"):
        VfioTransport(DEVICE, VfioContainer(kernel))


def test_a_kernel_without_type1_names_the_module(kernel: FakeKernel, container: VfioContainer) -> None:
    kernel.extensions = {abi.VFIO_TYPE1_IOMMU}
    card = VfioTransport(DEVICE, container)
    assert kernel.said(abi.VFIO_SET_IOMMU) == [(abi.VFIO_TYPE1_IOMMU,)]
    card.close()
    kernel.extensions = set()
    with pytest.raises(TransportError, match="modprobe vfio_iommu_type1"):
        VfioTransport(DEVICE, container)


WRONG = {
    "the kernel's": ({"driver": "ixgbe"}, "driver ixgbe has it, not vfio-pci: `ixroute bind 0000:03:00.0`"),
    "nobody's": ({"driver": None}, "no driver has it, not vfio-pci: `ixroute bind"),
    "no IOMMU": ({"group": None}, r"no IOMMU is on; .*intel_iommu=on.*noiommu:0000:03:00.0"),
    "no-IOMMU": ({"noiommu": True}, "is bound without an IOMMU"),
}


@pytest.mark.parametrize(("card", "message"), WRONG.values(), ids=list(WRONG))
def test_a_card_that_vfio_does_not_have_is_told_with_what_mends_it(
    tmp_path: Path, card: dict[str, object], message: str
) -> None:
    machine = Machine(tmp_path)
    machine.add(**card)  # type: ignore[arg-type]
    with pytest.raises(TransportError, match=message):
        VfioTransport(DEVICE, VfioContainer(FakeKernel(machine)))


def test_an_address_that_is_none_or_empty_is_told(container: VfioContainer) -> None:
    with pytest.raises(TransportError, match="eth0: is not a PCI address"):
        VfioTransport("eth0", container)
    with pytest.raises(TransportError, match=r"0000:04:00.0: no PCI device.*ixroute devices"):
        VfioTransport("04:00.0", container)


def test_a_card_that_refuses_bus_mastering_is_not_used(
    kernel: FakeKernel, container: VfioContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: len(data))
    with pytest.raises(TransportError, match="bus mastering cannot be switched on"):
        VfioTransport(DEVICE, container)
    assert not kernel.cards[DEVICE].vectors


def test_an_intel_iommu_of_fewer_bits_narrows_the_addresses(
    machine: Machine, kernel: FakeKernel, container: VfioContainer, buffer: DmaBuffer
) -> None:
    cap = machine.root / "sys/bus/pci/devices" / DEVICE / "iommu/intel-iommu/cap"
    cap.parent.mkdir(parents=True)
    cap.write_text(f"{(33 - 1) << 16 | 0b00010 << 8:x}\n")  # MGAW 33 bits, page tables of 3 levels
    assert machine.bus.iommu_bits(DEVICE) == 33
    kernel.ranges = [(1 << 33, 1 << 38)]
    card = VfioTransport(DEVICE, container)
    with pytest.raises(TransportError, match="no free DMA addresses"):
        card.dma_map(buffer)
    card.close()
    for text, bits in (("1c0000c40660462", 39), ("8d2078c106f0466", 48)):  # a desktop's, a server's
        cap.write_text(text + "\n")
        assert machine.bus.iommu_bits(DEVICE) == bits
