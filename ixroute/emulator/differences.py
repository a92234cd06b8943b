"""What the emulated card does otherwise than an 82599 made of silicon. Text, for people and docs/hardware.md."""

KNOWN_DIFFERENCES: tuple[str, ...] = (
    "One function a card: no SR-IOV capability, no virtual functions, no second port beside it; `port` only sets "
    "LAN_ID and which address of the EEPROM is taken.",
    "No INTx: the interrupt pin reads 0. MSI has its one vector, MSI-X its 64. The MSI-X table in BAR 4 is memory: "
    "the vfio-user client turns vectors into messages, and masks them.",
    "Everything that takes time on silicon (reset, EEPROM, DMA initialisation, queues, link) is done at once, or after "
    "a number of reads that can be chosen.",
    "Bus mastering, power states and the link are one gate for packets: with bus mastering off, interrupts still "
    "reach the client.",
    "CTRL.RST resets all of BAR 0 except semaphores and the tables that have no reset value (MTA, VFTA, RAL and RAH, "
    "MPSAR, RETA, RSSRK, queue filters); silicon keeps a few more registers that the EEPROM loads.",
    "The firmware is absent: FWSM says that it is valid and does nothing, the host interface is off (HICR.EN = 0), "
    "there is no management traffic and no wake-up.",
    "LinkSec and IPsec are fused off (SECTXSTAT and SECRXSTAT.OFF_DIS).",
    "Flow director filters are taken, counted and never match; FDIRFREE does not go down.",
    "FCoE, data centre bridging, rate limiting, mirroring and pools are registers that keep their values.",
    "The link has 10G or nothing: SFI with a module, or backplane negotiation with a willing partner. 1G modes never "
    "come up. The partner's abilities (ANLP1) are empty.",
    "MDIO answers FFFF everywhere; no PHY is there.",
    "The flash is empty: FLA's pins are stored and nobody answers.",
    "Time stamps: the clock runs by TIMINCA, no packet is stamped.",
    "With mapped queue pages, statistics inside them (QPRC, QBRC, QPRDC) can only be read by messages: the memory "
    "shows 0. Writes to mapped registers take effect when the engine looks, within a millisecond.",
    "Diagnostic registers (packet buffer memory, BIST, ECC, PCIe analog) are stored or read 0.",
    "Reset values that the EEPROM would load (LEDCTL, AUTOC, ESDP) and reserved bits are plausible, not those of one "
    "particular adapter.",
)
