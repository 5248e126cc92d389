//! DNS messages (RFC 1035, RFC 6891), as far as a forwarder reads and writes them.

use std::net::IpAddr;

/// Length of a message's header.
const HEADER_BYTES: usize = 12;
/// Longest name on the wire (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// Longest label (same section).
const MAX_LABEL_BYTES: usize = 63;
/// Longest answer over UDP to a client that promises no more (same section).
pub const LEAST_UDP_BYTES: usize = 512;
/// What this proxy takes over UDP, as it tells clients that say what they take. Fits into one packet of any network.
pub const OWN_UDP_BYTES: u16 = 1232;
/// Records of a query that are looked at, after its question. Queries have one, or two with a signature.
const MAX_RECORDS: u16 = 16;

/// Type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordType(pub u16);

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// Another name.
    pub const CNAME: Self = Self(5);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Extensions (EDNS).
    const OPT: Self = Self(41);
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// There is one.
    NoError,
    /// The query cannot be read.
    FormatError,
    /// No name server answered.
    ServerFailure,
    /// The query asks for something else than records of a name.
    NotImplemented,
}

impl Rcode {
    const fn number(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::FormatError => 1,
            Self::ServerFailure => 2,
            Self::NotImplemented => 4,
        }
    }
}

/// A query with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Number that the answer repeats.
    pub id: u16,
    /// The name in lower case, without a final dot; `None` for one that no table can hold (a label with a dot or with
    /// anything else than visible ASCII).
    pub name: Option<String>,
    /// What is asked for.
    pub kind: RecordType,
    /// Class `IN`.
    pub internet: bool,
    /// The question as it came, to be repeated.
    question: Vec<u8>,
    /// The client wants the name servers' own search done (RD), which answers repeat.
    recursion: bool,
    /// What the client takes over UDP, in bytes, if it says so.
    edns: Option<u16>,
}

/// A message that is no query we can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Nothing to answer to: an answer, or too short for a header.
    #[error("is no query")]
    NoQuery,
    /// To be refused.
    #[error("cannot be read")]
    Refused {
        /// Number that the refusal repeats.
        id: u16,
        /// What it says.
        rcode: Rcode,
    },
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// When it is none, or not one question about a name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Unreadable::NoQuery)?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags) = (number(0), number(2));
        if flags & QR != 0 {
            return Err(Unreadable::NoQuery);
        }
        if flags & OPCODE != 0 {
            return Err(Unreadable::Refused { id, rcode: Rcode::NotImplemented });
        }
        let malformed = Unreadable::Refused { id, rcode: Rcode::FormatError };
        if number(4) != 1 {
            return Err(malformed);
        }
        let (name, end) = name(bytes, HEADER_BYTES).ok_or(malformed)?;
        let (kind, class) = u16_at(bytes, end).zip(u16_at(bytes, end + 2)).ok_or(malformed)?;
        let after = end + 4;
        let records = number(6).saturating_add(number(8)).saturating_add(number(10));
        let edns = edns(bytes, after, records).ok_or(malformed)?;
        Ok(Self {
            id,
            name,
            kind: RecordType(kind),
            internet: class == CLASS_IN,
            question: bytes.get(HEADER_BYTES..after).unwrap_or_default().to_vec(),
            recursion: flags & RD != 0,
            edns,
        })
    }

    /// How long an answer over UDP may be.
    #[must_use]
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(LEAST_UDP_BYTES, |size| usize::from(size).max(LEAST_UDP_BYTES))
    }

    /// Whether `answer` answers this query: same number, same question.
    #[must_use]
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        let Some(header) = answer.first_chunk::<HEADER_BYTES>() else { return false };
        let (id, flags) = (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]));
        let question = answer.get(HEADER_BYTES..HEADER_BYTES + self.question.len());
        // A server that cannot read a query may leave out the question. Case is compared too: servers repeat it.
        let counted = u16_at(answer, 4);
        id == self.id && flags & QR != 0 && (counted == Some(0) || question == Some(&self.question[..]))
    }

    /// An answer without records.
    #[must_use]
    pub fn failure(&self, rcode: Rcode) -> Vec<u8> {
        let mut out = Writer::new(self, rcode);
        out.extensions(self);
        out.bytes
    }

    /// An answer of ours: the name is the mesh's, so that we are the authority. `alias` is the name that the one asked for
    /// stands for; addresses are of that one. What does not fit into `limit` bytes is left out and marked as cut.
    #[must_use]
    pub fn answer(&self, alias: Option<&str>, addresses: &[IpAddr], ttl: u32, limit: usize) -> Vec<u8> {
        let mut out = Writer::new(self, Rcode::NoError);
        out.set(AA);
        // What the last record may take: the extensions come after it.
        let limit = limit.saturating_sub(if self.edns.is_some() { OPT_BYTES } else { 0 });
        let mut owner = POINTER | u16::try_from(HEADER_BYTES).unwrap_or_default();
        if let Some(alias) = alias {
            let Some(target) = wire_name(alias) else { return self.failure(Rcode::ServerFailure) };
            owner = POINTER | u16::try_from(out.bytes.len() + RECORD_BYTES).unwrap_or_default();
            out.record(POINTER | 12, RecordType::CNAME, ttl, &target);
        }
        for address in addresses {
            let (kind, data) = match address {
                IpAddr::V4(v4) => (RecordType::A, v4.octets().to_vec()),
                IpAddr::V6(v6) => (RecordType::AAAA, v6.octets().to_vec()),
            };
            if out.bytes.len() + RECORD_BYTES + data.len() > limit {
                out.set(TC);
                break;
            }
            out.record(owner, kind, ttl, &data);
        }
        out.extensions(self);
        out.bytes
    }

    /// An answer that came from elsewhere, cut to `limit` bytes if it must be: then only the question is left, and the
    /// client asks again over TCP.
    #[must_use]
    pub fn cut(&self, answer: Vec<u8>, limit: usize) -> Vec<u8> {
        if answer.len() <= limit {
            return answer;
        }
        let mut out = Writer::new(self, Rcode::NoError);
        // The bits of the answer, such as who is the authority.
        if let (Some(theirs), Some(ours)) = (answer.get(2..4), out.bytes.get_mut(2..4)) {
            ours.copy_from_slice(theirs);
        }
        out.set(TC);
        out.extensions(self);
        out.bytes
    }
}

/// A refusal of something that is no query we can answer.
#[must_use]
pub fn refusal(id: u16, rcode: Rcode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes[2..4].copy_from_slice(&(QR | RA | u16::from(rcode.number())).to_be_bytes());
    bytes
}

/// Bits of the header (RFC 1035, section 4.1.1).
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
/// Class of Internet records.
const CLASS_IN: u16 = 1;
/// Two high bits mark a reference to a name earlier in the message (section 4.1.4).
const POINTER: u16 = 0xc000;
/// A record without its data whose name is a reference: name, type, class, time to live, length.
const RECORD_BYTES: usize = 12;
/// The extensions record without options: root name, type, size, flags, length.
const OPT_BYTES: usize = 11;

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Header and question of an answer.
    fn new(query: &Query, rcode: Rcode) -> Self {
        let mut bytes = refusal(query.id, rcode);
        bytes[5] = 1;
        bytes.extend_from_slice(&query.question);
        let mut writer = Self { bytes };
        if query.recursion {
            writer.set(RD);
        }
        writer
    }

    fn set(&mut self, bit: u16) {
        let [high, low] = bit.to_be_bytes();
        self.bytes[2] |= high;
        self.bytes[3] |= low;
    }

    /// Counts one more record of a section whose count is at `at`.
    fn count(&mut self, at: usize) {
        let count = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]).saturating_add(1);
        self.bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn record(&mut self, owner: u16, kind: RecordType, ttl: u32, data: &[u8]) {
        self.count(6);
        self.bytes.extend_from_slice(&owner.to_be_bytes());
        self.bytes.extend_from_slice(&kind.0.to_be_bytes());
        self.bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.bytes.extend_from_slice(&ttl.to_be_bytes());
        // A name has at most 255 bytes, an address 16.
        self.bytes.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        self.bytes.extend_from_slice(data);
    }

    /// A client that speaks EDNS gets an answer that does (RFC 6891, section 7).
    fn extensions(&mut self, query: &Query) {
        if query.edns.is_none() {
            return;
        }
        self.count(10);
        self.bytes.push(0);
        self.bytes.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
        self.bytes.extend_from_slice(&OWN_UDP_BYTES.to_be_bytes());
        self.bytes.extend_from_slice(&[0; 6]);
    }
}

/// Reads the name at `at` without references, which a question cannot have. Gives the text, if it is one that a table can
/// hold, and where the name ends.
fn name(bytes: &[u8], at: usize) -> Option<(Option<String>, usize)> {
    let mut text = Some(String::new());
    let mut position = at;
    loop {
        let length = usize::from(*bytes.get(position)?);
        if length > MAX_LABEL_BYTES {
            return None;
        }
        let label = bytes.get(position + 1..position + 1 + length)?;
        position += 1 + length;
        if position - at > MAX_NAME_BYTES {
            return None;
        }
        if length == 0 {
            return Some((text, position));
        }
        let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        text = text.filter(|_| plain).map(|mut text| {
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            text
        });
    }
}

/// The size that an extensions record among the `count` records from `at` names. `None`: they cannot be read.
#[expect(clippy::option_option, reason = "no record and no message are two things")]
fn edns(bytes: &[u8], mut at: usize, count: u16) -> Option<Option<u16>> {
    let mut found = None;
    for _ in 0..count.min(MAX_RECORDS) {
        let end = skip_name(bytes, at)?;
        let (kind, class) = (u16_at(bytes, end)?, u16_at(bytes, end + 2)?);
        let length = usize::from(u16_at(bytes, end + 8)?);
        bytes.get(end + 10..end + 10 + length)?;
        if RecordType(kind) == RecordType::OPT {
            // Of two, which must not be, the first counts.
            found = found.or(Some(class));
        }
        at = end + 10 + length;
    }
    Some(found)
}

/// Where the name at `at` ends, references allowed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if usize::from(length) <= MAX_LABEL_BYTES => at += 1 + usize::from(length),
            length if length >= 0xc0 => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A text as a name on the wire; `None` when it cannot be one.
fn wire_name(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    Some(out).filter(|name| name.len() <= MAX_NAME_BYTES)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
