//! Where the running kernel keeps the members of its structures, read from its type information.
//!
//! aya does not give the members of a type, and full readers of the format build an index of all hundred thousand types
//! first; this one walks over them once.

const PATH: &str = "/sys/kernel/btf/vmlinux";

/// Something that the kernel's type information tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The position in bits of a member of a structure: structure, member.
    Member(&'static str, &'static str),
    /// The size in bytes of a structure.
    Size(&'static str),
}

impl Wanted {
    const fn structure(self) -> &'static str {
        match self {
            Self::Member(structure, _) | Self::Size(structure) => structure,
        }
    }
}

/// The running kernel's type information. `None`: it has none.
pub(super) fn of_this_kernel() -> Option<Vec<u8>> {
    std::fs::read(PATH).ok()
}

/// What is wanted, in the same order; `None` for what is not there.
pub(super) fn look_up(btf: &[u8], wanted: &[Wanted]) -> Vec<Option<u32>> {
    let mut found = vec![None; wanted.len()];
    // Garbage tells nothing: what was found before it stays.
    walk(btf, wanted, &mut found).unwrap_or_default();
    found
}

/// Walks over all types (Documentation/bpf/btf.rst). `None`: the information ends too early.
fn walk(btf: &[u8], wanted: &[Wanted], found: &mut [Option<u32>]) -> Option<()> {
    const MAGIC: u16 = 0xeb9f;
    let magic = btf.get(..2)?.try_into().map(u16::from_le_bytes).ok()?;
    if magic != MAGIC {
        return None;
    }
    // struct btf_header: magic, version, flags (4 bytes); hdr_len, type_off, type_len, str_off, str_len.
    let field = |index| word(btf, index).and_then(|value| usize::try_from(value).ok());
    let header = field(1)?;
    let section = |offset: usize, length: usize| {
        let start = header.checked_add(offset)?;
        btf.get(start..start.checked_add(length)?)
    };
    let mut types = section(field(2)?, field(3)?)?;
    let names = section(field(4)?, field(5)?)?;
    let is_named = |offset: u32, name: &str| {
        let rest = usize::try_from(offset).ok().and_then(|offset| names.get(offset..));
        rest.and_then(|rest| rest.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    };
    // struct btf_type: name_off, info (vlen in bits 0 to 15, kind in 24 to 28, kind_flag in 31), size or type; then what
    // the kind adds.
    while let (Some(name), Some(info), Some(size)) = (word(types, 0), word(types, 1), word(types, 2)) {
        let (kind, count) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
        let body = types.get(12..)?;
        if kind == KIND_STRUCT {
            // struct btf_member: name_off, type, offset; with kind_flag the offset's upper 8 bits are the field's width.
            let members = body.get(..12 * count)?;
            let mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
            let place = |member: &str| {
                let entries = members.chunks_exact(12);
                let offset = |entry| is_named(word(entry, 0)?, member).then(|| word(entry, 2)).flatten();
                entries.filter_map(offset).next().map(|offset| offset & mask)
            };
            for (wish, slot) in wanted.iter().zip(found.iter_mut()) {
                if slot.is_none() && is_named(name, wish.structure()) {
                    *slot = match wish {
                        Wanted::Member(_, member) => place(member),
                        Wanted::Size(_) => Some(size),
                    };
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        types = body.get(extra(kind, count)?..)?;
    }
    Some(())
}

const KIND_STRUCT: u32 = 4;

/// Bytes that follow a `btf_type` of this kind. `None`: a kind of the future, behind which nothing can be read.
fn extra(kind: u32, count: usize) -> Option<usize> {
    match kind {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => Some(0),
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => Some(4),
        // ARRAY
        3 => Some(12),
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | 5 | 15 | 19 => Some(12 * count),
        // ENUM, FUNC_PROTO
        6 | 13 => Some(8 * count),
        _ => None,
    }
}

/// The `index`-th 32-bit word.
fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let start = index.checked_mul(4)?;
    bytes.get(start..start.checked_add(4)?)?.try_into().map(u32::from_le_bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One INT, one struct without and one with the member.
    fn example() -> Vec<u8> {
        let names = b"\0int\0other\0sock_common\0skc_ipv6only\0";
        let types: [u32; 22] = [
            1,
            1 << 24,
            4,
            32, // int
            5,
            (4 << 24) | 1,
            4,
            1,
            1,
            0, // other { int int; }
            11,
            (1 << 31) | (4 << 24) | 2,
            24,
            5,
            1,
            0,
            23,
            1,
            (1 << 24) | 157, // sock_common
            0,
            0,
            0,
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let lengths = [24, 0, types.len(), types.len(), names.len()];
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        btf.extend(lengths.iter().flat_map(|length| u32::try_from(*length).expect("small").to_le_bytes()));
        btf.extend(types);
        btf.extend(names);
        btf
    }

    const WANTED: [Wanted; 5] = [
        Wanted::Member("sock_common", "skc_ipv6only"),
        Wanted::Member("sock_commo", "skc_ipv6only"),
        Wanted::Member("sock_common", "other"),
        Wanted::Member("sock_common", "skc_ipv6"),
        Wanted::Size("sock_common"),
    ];

    #[test]
    fn reads_the_format() {
        assert_eq!(look_up(&example(), &WANTED), [Some(157), None, Some(0), None, Some(24)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(
            cut in 0_usize..200,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut btf = example();
            for (at, value) in changes {
                let at = at.index(btf.len());
                btf[at] = value;
            }
            btf.truncate(cut);
            let found = look_up(&btf, &WANTED);
            prop_assert!(found.iter().all(Option::is_none) || btf.len() > 24, "nothing is found without a header");
        }
    }
}
