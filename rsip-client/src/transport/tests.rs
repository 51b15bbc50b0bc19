use rsip_proto::ids::MessageCounter;
use rsip_proto::wire::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

fn request() -> Message {
    Message::new(MessageCounter::FIRST, Body::RegisterRequest)
}

fn v4(address: std::net::SocketAddr) -> SocketAddrV4 {
    match address {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => panic!("bound to IPv4"),
    }
}

async fn next(events: &mut mpsc::Receiver<Numbered>) -> TransportEvent {
    let (number, event) =
        tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("in time").expect("open");
    assert_eq!(number, 7);
    event
}

#[tokio::test]
async fn tcp_carries_messages_in_any_pieces() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let (sender, mut events) = mpsc::channel(8);
    let gateway = v4(listener.local_addr().expect("bound"));
    let transport = Transport::open(HostTransport::Tcp, gateway, 7, sender);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert!(matches!(next(&mut events).await, TransportEvent::Up));
    transport.send(&request());
    let bytes = request().encode().expect("valid");
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).await.expect("whole");
    assert_eq!(received, bytes);
    let twice = [bytes.clone(), bytes].concat();
    let (head, tail) = twice.split_at(3);
    stream.write_all(head).await.expect("open");
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(tail).await.expect("open");
    for _ in 0..2 {
        assert!(matches!(next(&mut events).await, TransportEvent::Message(m) if m == request()));
    }
    drop(stream);
    assert!(matches!(next(&mut events).await, TransportEvent::Down(TransportError::Closed)));
}

#[tokio::test]
async fn tcp_says_that_it_is_not_rsip() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let (sender, mut events) = mpsc::channel(8);
    let gateway = v4(listener.local_addr().expect("bound"));
    let _transport = Transport::open(HostTransport::Tcp, gateway, 7, sender);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert!(matches!(next(&mut events).await, TransportEvent::Up));
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("open");
    assert!(matches!(next(&mut events).await, TransportEvent::Down(TransportError::NotRsip(_))));
}

#[tokio::test]
async fn tcp_says_that_nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let gateway = v4(listener.local_addr().expect("bound"));
    drop(listener);
    let (sender, mut events) = mpsc::channel(8);
    let _transport = Transport::open(HostTransport::Tcp, gateway, 7, sender);
    let TransportEvent::Down(TransportError::Io(error)) = next(&mut events).await else {
        panic!("nobody listens")
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_was_sent_before_the_end_still_goes_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let (sender, mut events) = mpsc::channel(8);
    let gateway = v4(listener.local_addr().expect("bound"));
    let transport = Transport::open(HostTransport::Tcp, gateway, 7, sender);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    assert!(matches!(next(&mut events).await, TransportEvent::Up));
    transport.send(&request());
    drop(transport);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("closed cleanly");
    assert_eq!(received, request().encode().expect("valid"));
}

#[tokio::test]
async fn udp_hears_the_gateway_only() {
    let gateway = UdpSocket::bind("127.0.0.1:0").await.expect("free");
    let (sender, mut events) = mpsc::channel(8);
    let transport = Transport::open(HostTransport::Udp, v4(gateway.local_addr().expect("bound")), 7, sender);
    assert!(matches!(next(&mut events).await, TransportEvent::Up));
    transport.send(&request());
    let mut buffer = [0; 64];
    let (count, host) = gateway.recv_from(&mut buffer).await.expect("a datagram");
    let bytes = request().encode().expect("valid");
    assert_eq!(buffer.get(..count), Some(bytes.as_slice()));
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("free");
    stranger.send_to(&bytes, host).await.expect("sent");
    gateway.send_to(b"garbage", host).await.expect("sent");
    gateway.send_to(&bytes, host).await.expect("sent");
    assert!(matches!(next(&mut events).await, TransportEvent::Garbage(_)));
    assert!(matches!(next(&mut events).await, TransportEvent::Message(m) if m == request()));
    drop(gateway);
    transport.send(&request());
    assert!(matches!(next(&mut events).await, TransportEvent::Unreachable(_)));
    transport.send(&request());
    assert!(matches!(next(&mut events).await, TransportEvent::Unreachable(_)), "it goes on");
}
