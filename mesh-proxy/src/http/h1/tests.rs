//! What a closed connection tells of the request that was sent on it.

use mesh_proxy_core::h1::head::Switch;
use mesh_proxy_core::head::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::io::Io;

async fn pair() -> (Wire, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Wire::new(Stream::plain(Io::Tcp(client), Vec::new()), Limits::default(), ByteQueue::default()), server)
}

fn queue(wire: &mut Wire) {
    let mut head = Head::request();
    head.set_method(b"POST").unwrap();
    head.set_target(b"/").unwrap();
    head.set_authority(b"app").unwrap();
    wire.send_request(&head, Framing::Length(5), Connection::Persist);
    wire.send_bytes(b"hello");
}

async fn answer(wire: &mut Wire) -> Broken {
    let asked = Asked { method: Method::Post, switch: Switch::None };
    let mut head = Head::response();
    std::future::poll_fn(|cx| wire.poll_response(cx, asked, &mut head)).await.unwrap_err()
}

#[tokio::test]
async fn a_server_that_had_closed_sends_the_request_back_unread() {
    let (mut wire, server) = pair().await;
    drop(server);
    queue(&mut wire);
    std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    assert!(wire.has_sent());
    let broken = answer(&mut wire).await;
    assert!(matches!(broken, Broken::Closed), "{broken:?}");
    assert!(!wire.has_sent(), "nothing of it was read");
}

#[tokio::test]
async fn a_server_that_closes_later_may_have_read_it() {
    // Read whole, read in part, and not read at all: the last cannot be told from the second.
    for read in [1000, 10, 0] {
        let (mut wire, mut server) = pair().await;
        queue(&mut wire);
        std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        server.readable().await.unwrap();
        let mut taken = vec![0; read];
        if read > 0 {
            assert!(server.read(&mut taken).await.unwrap() > 0);
        }
        drop(server);
        let broken = answer(&mut wire).await;
        assert!(matches!(broken, Broken::Closed | Broken::Io(_)), "{broken:?}");
        assert!(wire.has_sent(), "{read}: {broken:?}");
    }
}

#[tokio::test]
async fn of_two_pieces_the_first_may_have_been_read() {
    let (mut wire, mut server) = pair().await;
    queue(&mut wire);
    std::future::poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    let mut taken = vec![0; 1000];
    assert!(server.read(&mut taken).await.unwrap() > 0);
    server.shutdown().await.unwrap();
    drop(server);
    wire.out().extend_from_slice(b"more");
    let _ = std::future::poll_fn(|cx| wire.poll_flush(cx)).await;
    let broken = answer(&mut wire).await;
    assert!(wire.has_sent(), "{broken:?}");
}
