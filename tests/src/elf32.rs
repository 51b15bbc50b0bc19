//! 32-bit programs, without a 32-bit tool chain: they bind a TCP socket to a port on every address, and exit with the errno.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// By which system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind, as C libraries do since Linux 4.3.
    Bind,
    /// socketcall, as they did before.
    Socketcall,
}

const BASE: u32 = 0x0804_8000;
const HEADERS: u32 = 52 + 32;

/// socket(AF_INET, SOCK_STREAM, 0), bind(…, 0x8048089, 16), exit(-result).
const BY_BIND: [u8; 53] = [
    0xb8, 0x67, 0x01, 0, 0, // mov $359, %eax
    0xbb, 2, 0, 0, 0, // mov $2, %ebx
    0xb9, 1, 0, 0, 0, // mov $1, %ecx
    0x31, 0xd2, // xor %edx, %edx
    0xcd, 0x80, // int $0x80
    0x85, 0xc0, // test %eax, %eax
    0x78, 0x13, // js fail
    0x89, 0xc3, // mov %eax, %ebx
    0xb9, 0x89, 0x80, 0x04, 0x08, // mov $address, %ecx
    0xba, 16, 0, 0, 0, // mov $16, %edx
    0xb8, 0x69, 0x01, 0, 0, // mov $361, %eax
    0xcd, 0x80, // int $0x80
    0xf7, 0xd8, // fail: neg %eax
    0x89, 0xc3, // mov %eax, %ebx
    0xb8, 1, 0, 0, 0, // mov $1, %eax
    0xcd, 0x80, // int $0x80
];

/// The same by socketcall(SYS_SOCKET, 0x804808a), socketcall(SYS_BIND, …), with the address at 0x8048096.
const BY_SOCKETCALL: [u8; 66] = [
    0xb8, 102, 0, 0, 0, // mov $102, %eax
    0xbb, 1, 0, 0, 0, // mov $1, %ebx
    0xb9, 0x8a, 0x80, 0x04, 0x08, // mov $arguments, %ecx
    0xcd, 0x80, // int $0x80
    0x85, 0xc0, // test %eax, %eax
    0x78, 0x16, // js fail
    0x6a, 16, // push $16
    0x68, 0x96, 0x80, 0x04, 0x08, // push $address
    0x50, // push %eax
    0xb8, 102, 0, 0, 0, // mov $102, %eax
    0xbb, 2, 0, 0, 0, // mov $2, %ebx
    0x89, 0xe1, // mov %esp, %ecx
    0xcd, 0x80, // int $0x80
    0xf7, 0xd8, // fail: neg %eax
    0x89, 0xc3, // mov %eax, %ebx
    0xb8, 1, 0, 0, 0, // mov $1, %eax
    0xcd, 0x80, // int $0x80
    2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // arguments: AF_INET, SOCK_STREAM, 0
];

/// Writes such a program.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, call: Call, port: u16) -> io::Result<()> {
    let code: &[u8] = match call {
        Call::Bind => &BY_BIND,
        Call::Socketcall => &BY_SOCKETCALL,
    };
    // struct sockaddr_in
    let mut address = vec![2, 0];
    address.extend(port.to_be_bytes());
    address.resize(16, 0);
    let length = u32::try_from(code.len() + address.len()).unwrap_or(u32::MAX) + HEADERS;

    // Elf32_Ehdr: an executable for the 386, with one program header.
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0];
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // Elf32_Phdr: all of the file, to be read and executed.
    for word in [1, 0, BASE, BASE, length, length, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file.extend(address);
    fs::write(path, file)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
