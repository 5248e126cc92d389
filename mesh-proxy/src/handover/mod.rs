//! A new process of the proxy takes over from a running one: not one connection is refused or lost.
//!
//! The new process connects to an abstract unix socket of the running one, which belongs to the network namespace and so needs
//! no shared folder. It gets every listening socket: the same open file description, whose queue of connections lives on. It
//! warms up while the other serves, says that it is ready, is told to go, and only then the other stops accepting. Until ten
//! seconds later the old process takes up its work again if the new one dies; then it drains and ends.
//!
//! What is decided is pure: [`giver`] for the running process, [`taker`] for the new one. Around them: [`message`] and
//! [`channel`] (bytes and descriptors), [`door`] (who may ask), [`give`] and [`take`] (the two sides), [`successor`] (a process
//! that starts its own successor), [`replace`] (who brings it the program) and [`supervise`] (what remains of that process).

pub mod channel;
pub mod door;
pub mod give;
pub mod giver;
pub mod message;
pub mod replace;
pub mod status;
pub mod successor;
pub mod supervise;
pub mod take;
pub mod taker;
