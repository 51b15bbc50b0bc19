//! Writes the test vectors as a hex dump that other decoders can read:
//!
//! ```sh
//! cargo run -p rsip-proto --example vectors | text2pcap -q -u 4555,4555 - vectors.pcap
//! tshark -r vectors.pcap -O rsip -V
//! ```
//!
//! tshark counts one port too many at the end of a range, shows IDs above 2147483647 as negative, and always reads two
//! bytes of an Indicator; otherwise it should see what the first line of each vector's file says.

#[path = "../tests/wire/hex.rs"]
mod hex;

fn main() {
    for folder in ["", "accepted"] {
        for (name, vector) in hex::folder(folder) {
            println!("# {name}: {}", vector.shown);
            for (line, bytes) in vector.bytes.chunks(16).enumerate() {
                let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{:06x} {}", 16 * line, bytes.join(" "));
            }
        }
    }
}
