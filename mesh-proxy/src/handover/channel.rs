//! A connection between the two processes: messages, and descriptors beside them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::message::{MAX_SOCKETS, Message, MessageError, SOCKETS_A_MESSAGE};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Time for the other side to read a message.
const SEND: Duration = Duration::from_secs(10);
/// Room for the descriptors of one message.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(SOCKETS_A_MESSAGE));

/// One side of the connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// The connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The system's error.
    #[error("the connection between the two processes failed")]
    Io(#[from] io::Error),
    /// The other side says what is no message.
    #[error("the other process does not speak the protocol of the hand-over")]
    Message(#[from] MessageError),
    /// Sockets were named without their descriptors, or too many came.
    #[error("{found} descriptors came where {expected} were expected")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many belong to the message, or may come at all.
        expected: usize,
    },
}

impl Channel {
    /// Speaks over `stream`.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new(), descriptors: VecDeque::new() }
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    /// When the other side is gone or does not read, or the message is too long.
    pub async fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let sent = timeout(SEND, self.send_whole(message, descriptors)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn send_whole(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if descriptors.len() > SOCKETS_A_MESSAGE || descriptors.len() != message.descriptors() {
            let (found, expected) = (descriptors.len(), message.descriptors().min(SOCKETS_A_MESSAGE));
            return Err(ChannelError::Descriptors { found, expected });
        }
        let bytes = message.encode()?;
        let (mut rest, mut descriptors) = (bytes.as_slice(), descriptors);
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_io(Interest::WRITABLE, || send_some(&self.stream, rest, descriptors)) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    // They went with the first byte.
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message with its descriptors; `None` when the other side has closed the connection. Cancel-safe.
    ///
    /// # Errors
    /// When what comes is no message.
    pub async fn receive(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ChannelError> {
        loop {
            if let Some((message, length)) = Message::decode(&self.received)? {
                self.received.drain(..length);
                let (found, expected) = (self.descriptors.len(), message.descriptors());
                if found < expected {
                    return Err(ChannelError::Descriptors { found, expected });
                }
                return Ok(Some((message, self.descriptors.drain(..expected).collect())));
            }
            self.stream.readable().await?;
            let Self { stream, received, descriptors } = self;
            match stream.try_io(Interest::READABLE, || receive_some(stream, received, descriptors)) {
                Ok(0) => return Ok(None),
                Ok(_) if self.descriptors.len() > MAX_SOCKETS => {
                    let (found, expected) = (self.descriptors.len(), MAX_SOCKETS);
                    return Err(ChannelError::Descriptors { found, expected });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // As good as closed: the other process is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn send_some(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A process that is gone is an error here, not the end of this one.
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive_some(stream: &UnixStream, received: &mut Vec<u8>, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; READ_BYTES];
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost: the limit of open files?"));
    }
    received.extend_from_slice(bytes.get(..got.bytes).unwrap_or_default());
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::handover::message::{Handed, Role};

    fn mk_pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    #[tokio::test]
    async fn a_socket_arrives_with_the_connections_that_wait_in_it() {
        let (one, mut other) = mk_pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let message = Message::Sockets { sockets: vec![Handed { role: Role::Listener, address }] };
        one.send(&Message::Ready, &[]).await.unwrap();
        one.send(&message, &[listener.as_fd()]).await.unwrap();
        drop((listener, one));
        assert_eq!(other.receive().await.unwrap().unwrap().0, Message::Ready);
        let (found, mut descriptors) = other.receive().await.unwrap().unwrap();
        assert_eq!(found, message);
        let listener = TcpListener::from(descriptors.remove(0));
        listener.accept().unwrap();
        assert!(other.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_longer_than_the_kernels_buffer_arrives() {
        let (one, mut other) = mk_pair();
        let message = Message::Abort { reason: "x".repeat(1 << 20) };
        let (sent, got) = tokio::join!(one.send(&message, &[]), other.receive());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap().0, message);
    }

    #[tokio::test]
    async fn sockets_without_descriptors_are_an_error() {
        let (mut one, mut other) = mk_pair();
        let sockets = vec![Handed { role: Role::Listener, address: ([0, 0, 0, 0], 15006).into() }];
        let message = Message::Sockets { sockets };
        assert!(matches!(one.send(&message, &[]).await, Err(ChannelError::Descriptors { .. })));
        one.stream.write_all(&message.encode().unwrap()).await.unwrap();
        let error = other.receive().await.unwrap_err();
        assert!(matches!(error, ChannelError::Descriptors { found: 0, expected: 1 }), "{error:?}");
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let (mut one, mut other) = mk_pair();
        one.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(other.receive().await, Err(ChannelError::Message(_))));
    }
}
