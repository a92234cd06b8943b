/* Every reason a packet can be dropped or punted for. The one list: the C enum, the names in `ixroute stats`, the
 * Python constants and docs/counters.md all come from here.
 *
 * Names are Linux's devlink-trap names (Documentation/networking/devlink/devlink-trap.rst) wherever it has one.
 * REASON(kind, name, what it says to an operator)
 *   DROP: ended here, counted.   PUNT: given unchanged to the kernel on the TAP of the port it came in by.
 *
 * A reason's number is the action byte of an adjacency (fib/adjacency.h); 0 is "forward".
 */
#ifndef IXROUTE_FORWARD_REASONS_H
#define IXROUTE_FORWARD_REASONS_H

#define REASON_LIST(REASON) \
	/* Ethernet */ \
	REASON(DROP, frame_too_short, "shorter than an Ethernet header") \
	REASON(DROP, other_host, "destination MAC is neither the interface's nor group") \
	REASON(DROP, vlan_tag_mismatch, "VLAN id without a sub-interface on the TAP") \
	REASON(DROP, non_ip, "EtherType that a router does not handle") \
	REASON(DROP, port_down, "the interface is administratively down") \
	REASON(PUNT, vlan_sub_interface, "VLAN id of a sub-interface that only the kernel can serve") \
	REASON(PUNT, link_local_frame, "01:80:c2:00:00:xx, 09:00:2b:00:00:04 and :05: LLDP, LACP, STP, EAPOL, IS-IS") \
	REASON(PUNT, kernel_interface, "the TAP or sub-interface is in a bridge or bond, or carries a macvlan: the kernel decides") \
	REASON(PUNT, arp_request, "ARP request, gratuitous ARP") \
	REASON(PUNT, arp_response, "ARP reply to the port's MAC") \
	/* IPv4 */ \
	REASON(DROP, ip_header_corrupted, "version, header length, total length or checksum wrong (IPv4); version wrong (IPv6)") \
	REASON(DROP, ip_truncated, "longer by its header than by its frame") \
	REASON(DROP, sip_is_unspecified, "source 0.0.0.0 or ::") \
	REASON(DROP, ipv4_sip_is_limited_bc, "source 255.255.255.255") \
	REASON(DROP, sip_is_mc, "source is a multicast address") \
	REASON(DROP, sip_is_loopback_address, "source 127/8 or ::1") \
	REASON(DROP, sip_is_own, "source is an IPv4 address of the router") \
	REASON(DROP, dip_is_unspecified, "destination 0.0.0.0") \
	REASON(DROP, dip_is_loopback_address, "destination 127/8 or ::1") \
	REASON(DROP, uc_dip_over_mc_dmac, "unicast packet in a broadcast or multicast frame") \
	REASON(PUNT, ipv4_options, "IPv4 header with options") \
	REASON(PUNT, ipv4_broadcast, "limited or directed broadcast") \
	REASON(PUNT, ipv4_multicast, "IPv4 multicast") \
	REASON(PUNT, source_validation, "rp_filter is on and the source's route does not point here, or not simply") \
	/* IPv6 */ \
	REASON(DROP, ipv6_mc_dip_reserved_scope, "destination ff00::/16") \
	REASON(DROP, ipv6_mc_dip_interface_local_scope, "destination ff01::/16") \
	REASON(PUNT, ipv6_hop_by_hop, "hop-by-hop options header") \
	REASON(PUNT, ipv6_link_local, "link-local source or destination") \
	REASON(PUNT, ipv6_multicast, "IPv6 multicast") \
	REASON(PUNT, ipv6_neighbour_discovery, "router or neighbour solicitation, advertisement, redirect") \
	/* Lookup */ \
	REASON(PUNT, local_route, "to an address of the router") \
	REASON(PUNT, routing_protocol, "to the router: BGP, OSPF, BFD, VRRP, PIM, RIP, LDP, IGMP/MLD") \
	REASON(PUNT, external_route, "the route leaves by an interface that is neither a port nor a VLAN of one, or only the kernel can follow it") \
	REASON(PUNT, no_route, "nothing matches, or a throw route: the kernel answers") \
	REASON(PUNT, reject_route, "unreachable or prohibit route: the kernel answers") \
	REASON(DROP, blackhole_route, "blackhole route or blackhole nexthop") \
	REASON(PUNT, unresolved_neigh, "next hop's MAC not known: the kernel resolves it and keeps the packet meanwhile") \
	REASON(PUNT, multipath_route, "several next hops, not all of them gateways by ports of one MTU: the kernel chooses") \
	REASON(PUNT, ttl_value_is_too_small, "TTL or hop limit would reach 0: the kernel sends time exceeded") \
	REASON(PUNT, mtu_value_is_too_small, "longer than the MTU of the way out: the kernel fragments or says too big") \
	REASON(PUNT, ingress_is_egress, "leaves by the interface it came in by: first packets, for the kernel's redirect") \
	REASON(PUNT, forwarding_disabled, "sysctl forwarding is 0 on the interface") \
	REASON(PUNT, policy_rule, "ip rules that only the kernel can follow, or tables not read yet: the kernel decides") \
	/* Resources */ \
	REASON(DROP, tx_ring_full, "no room in the transmit ring of the port it was to leave by") \
	REASON(DROP, punt_ring_full, "the kernel's door did not keep up") \
	REASON(DROP, inject_too_long, "from the kernel, longer than the port can send")

enum reason {
	REASON_FORWARD = 0,
#define REASON(kind, name, text) REASON_##name,
	REASON_LIST(REASON)
#undef REASON
	REASON_COUNT
};

enum reason_kind { REASON_KIND_FORWARD, REASON_KIND_DROP, REASON_KIND_PUNT };

_Static_assert(REASON_COUNT <= 63, "cells of a counter block (forward/counters.h)");

/* For Python and the documentation. NULL / REASON_KIND_FORWARD for a number outside the list. */
unsigned reason_count(void);
const char *reason_name(unsigned reason);
const char *reason_text(unsigned reason);
unsigned reason_kind(unsigned reason);

#endif
