//! Writes the test vectors as a hex dump that other decoders can read:
//!
//! ```sh
//! cargo run -p rsip-proto --example vectors | text2pcap -q -u 4555,4555 - vectors.pcap
//! tshark -r vectors.pcap -O rsip -V
//! ```
//!
//! tshark reads each as the first line of its file says, but for the slips of its dissector that `rsip_capture::judge::slips`
//! lists; in the test run `rsip-judge` compares field by field.

#[path = "../tests/wire/hex.rs"]
mod hex;

fn main() {
    for folder in ["", "forms", "error_codes", "accepted"] {
        for (name, vector) in hex::folder(folder) {
            println!("# {name}: {}", vector.shown);
            for (line, bytes) in vector.bytes.chunks(16).enumerate() {
                let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{:06x} {}", 16 * line, bytes.join(" "));
            }
        }
    }
}
