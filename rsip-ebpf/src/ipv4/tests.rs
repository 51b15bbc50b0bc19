use super::*;

/// The checksum computed the slow way, over all octets, with the field as it stands: 0 for a sound header.
fn residue(header: &Header) -> u16 {
    let octets = octets(header);
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(header: &Header) -> [u8; 20] {
    let mut octets = [0; 20];
    octets[0] = header.version_ihl;
    octets[1] = header.tos;
    octets[2..4].copy_from_slice(&header.total_length.to_ne_bytes());
    octets[4..6].copy_from_slice(&header.identification.to_ne_bytes());
    octets[6..8].copy_from_slice(&header.fragment.to_ne_bytes());
    octets[8] = header.ttl;
    octets[9] = header.protocol;
    octets[10..12].copy_from_slice(&header.checksum.to_ne_bytes());
    octets[12..16].copy_from_slice(&header.source.to_ne_bytes());
    octets[16..20].copy_from_slice(&header.destination.to_ne_bytes());
    octets
}

fn address(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

fn inner() -> Header {
    let mut header = Header {
        version_ihl: 0x45,
        tos: 0x12,
        total_length: 100u16.to_be(),
        identification: 0x1234,
        fragment: 0,
        ttl: 17,
        protocol: PROTOCOL_TCP,
        checksum: 0,
        source: address([203, 0, 113, 7]),
        destination: address([198, 51, 100, 9]),
    };
    header.checksum = header.compute_checksum();
    header
}

#[test]
fn outer_header_is_what_rfc_2003_says() {
    let outer = Header::around(Tunnel::IpIp, &inner(), 100, address([10, 0, 0, 2]), address([10, 0, 0, 1]));
    assert_eq!(
        octets(&outer)[..10],
        [0x45, 0x12, 0, 120, 0, 0, 0x40, 0, 64, 4],
        "TOS copied, length of both, no identification, DF, own TTL, IP-in-IP"
    );
    assert_eq!(octets(&outer)[12..], [10, 0, 0, 2, 10, 0, 0, 1]);
    assert_eq!(residue(&outer), 0);
}

#[test]
fn checksum_survives_every_ttl() {
    for ttl in 1..=255 {
        for protocol in [0, 1, 6, 17, 255] {
            let mut header = Header { ttl, protocol, checksum: 0, ..inner() };
            header.checksum = header.compute_checksum();
            header.decrement_ttl();
            assert_eq!(header.ttl, ttl - 1);
            assert_eq!(residue(&header), 0, "TTL {ttl}, protocol {protocol}");
        }
    }
}

#[test]
fn incremental_update_equals_full_computation() {
    for word in 0..=u16::MAX {
        let mut header = Header { identification: word, checksum: 0, ..inner() };
        header.checksum = header.compute_checksum();
        let checksum = update_checksum(header.checksum, word, 0xbeef);
        let changed = Header { identification: 0xbeef, checksum, ..header };
        assert_eq!(residue(&changed), 0, "word {word:#06x}");
    }
}

#[test]
fn ecn_merges_as_the_table_of_rfc_6040_says() {
    // (inner, outer, merged); None: drop. RFC 6040, figure 4.
    let table = [
        (0, 0, Some(0)),
        (0, 2, Some(0)),
        (0, 1, Some(0)),
        (0, 3, None),
        (2, 0, Some(2)),
        (2, 2, Some(2)),
        (2, 1, Some(1)),
        (2, 3, Some(3)),
        (1, 0, Some(1)),
        (1, 2, Some(1)),
        (1, 1, Some(1)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 2, Some(3)),
        (3, 1, Some(3)),
        (3, 3, Some(3)),
    ];
    for (inner_ecn, outer_ecn, merged) in table {
        let mut header = Header { tos: 0xb8 | inner_ecn, checksum: 0, ..inner() };
        header.checksum = header.compute_checksum();
        let outer = Header { tos: outer_ecn, ..inner() };
        match merged {
            Some(ecn) => {
                assert_eq!(header.merge_ecn(&outer), Ok(()));
                assert_eq!(header.tos, 0xb8 | ecn, "inner {inner_ecn}, outer {outer_ecn}");
                assert_eq!(residue(&header), 0);
            }
            None => assert_eq!(header.merge_ecn(&outer), Err(Congested)),
        }
    }
}

#[test]
fn lengths_must_agree() {
    let header = inner();
    assert!(header.fits(100));
    assert!(header.fits(146), "a short frame is padded");
    assert!(!header.fits(99), "truncated");
    assert!(!Header { version_ihl: 0x65, ..header }.fits(100), "version 6");
    assert!(!Header { version_ihl: 0x44, ..header }.fits(100), "header shorter than a header");
    assert!(!Header { total_length: 19u16.to_be(), ..header }.fits(100), "shorter than its header");
    let options = Header { version_ihl: 0x4f, total_length: 60u16.to_be(), ..header };
    assert_eq!(options.header_length(), 60);
    assert!(options.fits(60));
    assert!(!options.fits(59));
}

#[test]
fn fragments_are_told_apart() {
    let whole = Header { fragment: 0x4000u16.to_be(), ..inner() };
    let first = Header { fragment: 0x2000u16.to_be(), ..inner() };
    let middle = Header { fragment: 0x2001u16.to_be(), ..inner() };
    let last = Header { fragment: 0x1fffu16.to_be(), ..inner() };
    assert_eq!([whole, first, middle, last].map(|h| h.is_fragment()), [false, true, true, true]);
    assert_eq!([whole, first, middle, last].map(|h| h.is_later_fragment()), [false, false, true, true]);
}

#[test]
fn addresses_that_are_no_hosts() {
    assert!(is_loopback(address([127, 255, 0, 1])));
    assert!(!is_loopback(address([126, 0, 0, 127])));
    for octets in [[0, 1, 2, 3], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]] {
        assert!(is_not_a_host(address(octets)), "{octets:?}");
    }
    for octets in [[1, 0, 0, 0], [223, 255, 255, 255], [10, 0, 0, 255]] {
        assert!(!is_not_a_host(address(octets)), "{octets:?}");
    }
}

#[test]
fn gre_needs_four_octets_more() {
    let inner = Header { version_ihl: VERSION_IHL, ..Header::default() };
    let [ipip, gre] = [Tunnel::IpIp, Tunnel::Gre].map(|tunnel| Header::around(tunnel, &inner, 100, 1, 2));
    assert_eq!((ipip.protocol(), ipip.total_length()), (PROTOCOL_IPIP, 120));
    assert_eq!((gre.protocol(), gre.total_length()), (PROTOCOL_GRE, 124));
}

#[test]
fn two_parts_of_a_datagram_know_their_places() {
    let whole =
        Header { version_ihl: VERSION_IHL, fragment: (MORE_FRAGMENTS | 100).to_be(), ..Header::default() };
    let (first, rest) = (whole.first_part(1456), whole.rest_after(1456, 44));
    assert_eq!((first.total_length(), u16::from_be(first.fragment)), (1476, MORE_FRAGMENTS | 100));
    assert_eq!((rest.total_length(), u16::from_be(rest.fragment)), (64, MORE_FRAGMENTS | 282));
    let last = Header { fragment: 0, ..whole }.rest_after(8, 1);
    assert_eq!(u16::from_be(last.fragment), 1, "nothing comes after the end");
    assert!(whole.may_be_fragmented());
    assert!(!Header { fragment: DONT_FRAGMENT.to_be(), ..whole }.may_be_fragmented());
}
