//! gRPC-shaped unary load over h2c (prior knowledge): HEADERS + DATA up, and the call is
//! over when the peer ends the stream. Requests are pre-encoded with stateless HPACK and
//! answers are not decoded (only the `:status 200` index of their heads is looked for), so the client
//! costs little. Closed loop (`--rate 0`) keeps `--streams` calls open per connection;
//! `--rate R` is open loop with latency counted from the due time, as in `load`.
use crate::args::Args;
use crate::hist::Hist;
use crate::sys::{self, Epoll};
use std::os::fd::RawFd;

struct Conn {
    fd: RawFd,
    next_stream: u32,
    /// Due time per open stream, indexed by (id / 2) modulo the ring size.
    due: Vec<u64>,
    /// Whether the answer's headers came, in the same places as `due`: what comes after them are trailers.
    answered: Vec<bool>,
    open: usize,
    inb: Vec<u8>,
    out: Vec<u8>,
    recv_unacked: u32,
    send_window: i64,
    max_streams: usize,
    armed: bool,
}

/// Streams that may be open on one connection, and some: ids in use never share a place.
const RING: usize = 65536;

fn place(stream: u32) -> usize {
    stream as usize / 2 % RING
}

fn frame(out: &mut Vec<u8>, ty: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[ty, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
}

/// Literal with an indexed (static table) name.
fn named(out: &mut Vec<u8>, idx: u8, value: &str) {
    assert!(idx < 15 && value.len() < 127);
    out.push(idx);
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
}

/// The two frames' payloads of every call.
struct Call {
    headers: Vec<u8>,
    message: Vec<u8>,
}

impl Call {
    fn new(args: &Args) -> Self {
        let size: usize = args.num("size", 64);
        let mut headers = vec![0x83, 0x86]; // :method POST, :scheme http
        named(&mut headers, 4, &args.str("path", "/bench.Echo/Unary"));
        named(&mut headers, 1, &args.str("host", "app.bench.svc.cluster.local"));
        literal(&mut headers, "content-type", "application/grpc");
        literal(&mut headers, "te", "trailers");
        literal(&mut headers, "user-agent", "meshbench");
        let mut message = vec![0];
        message.extend_from_slice(&(size as u32).to_be_bytes());
        message.resize(5 + size, b'x');
        Call { headers, message }
    }
}

/// When to measure, and how often to call.
struct Schedule {
    start: u64,
    from: u64,
    end: u64,
    /// Nanoseconds between two calls; 0 = closed loop.
    gap: f64,
}

#[derive(Default)]
struct Totals {
    lat: Hist,
    done: u64,
    total: u64,
    failed: u64,
    issued: u64,
}

pub fn run(args: &Args) {
    let addr = sys::resolve(&args.str("addr", "127.0.0.1:8080"));
    let streams: usize = args.num("streams", 100);
    let rate: f64 = args.num("rate", 0.0);
    let ns = |s: f64| (s * 1e9) as u64;
    let duration: f64 = args.num("duration", 5.0);
    let call = Call::new(args);
    let ep = Epoll::new();
    let mut conns: Vec<Conn> = (0..args.num("conns", 4usize)).map(|i| Conn::open(addr, streams, &ep, i)).collect();
    let start = sys::now_ns() + 20_000_000;
    let from = start + ns(args.num("warmup", 1.0));
    let gap = if rate > 0.0 { 1e9 / rate } else { 0.0 };
    let plan = Schedule { start, from, end: from + ns(duration), gap };
    let mut t = Totals::default();
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
    let mut buf = vec![0u8; 1 << 18];
    let mut rr = 0;
    'run: loop {
        let now = sys::now_ns();
        if now >= plan.end {
            break;
        }
        let wait = if now < start { start - now } else { issue(&mut conns, &call, &plan, &mut t, &mut rr) };
        for (i, c) in conns.iter_mut().enumerate() {
            c.flush(&ep, i);
        }
        let k = ep.wait(&mut evs, wait.min(plan.end.saturating_sub(sys::now_ns())).max(1));
        for ev in &evs[..k] {
            let c = &mut conns[ev.u64 as usize];
            let got = sys::recv(c.fd, &mut buf);
            if got < 0 && sys::would_block() {
                continue;
            }
            if got <= 0 {
                eprintln!("connection closed by peer");
                t.failed += c.open as u64;
                break 'run;
            }
            c.feed(&buf[..got as usize], &plan, &mut t);
        }
    }
    let due = if gap > 0.0 { ((plan.end - start) as f64 / gap) as u64 } else { 0 };
    let (unsent, done, rps) = (due.saturating_sub(t.issued + 1), t.done, t.done as f64 / duration);
    println!(
        "{{\"rps\":{rps:.1},\"requests\":{done},\"total\":{},\"errors\":{},\"non2xx\":0,\"unsent\":{unsent},\"seconds\":{duration},\"latency_us\":{}}}",
        t.total, t.failed, t.lat.json()
    );
}

/// Queues every call that is due and has a place; returns how long to wait for the next (ns).
fn issue(conns: &mut [Conn], call: &Call, plan: &Schedule, t: &mut Totals, rr: &mut usize) -> u64 {
    let n = conns.len();
    let mut full = 0;
    while full < n {
        let c = &mut conns[*rr % n];
        if c.open >= c.max_streams || c.send_window < call.message.len() as i64 {
            *rr += 1;
            full += 1;
            continue;
        }
        let now = sys::now_ns();
        let mut due = now;
        if plan.gap > 0.0 {
            due = plan.start + (t.issued as f64 * plan.gap) as u64;
            if due > now {
                return due - now;
            }
            *rr += 1;
        }
        full = 0;
        c.begin(call, due);
        t.issued += 1;
    }
    100_000_000
}

impl Conn {
    fn open(addr: std::net::SocketAddr, streams: usize, ep: &Epoll, token: usize) -> Self {
        let fd = sys::connect_nonblocking(addr, None).unwrap_or_else(|e| {
            eprintln!("connect {addr}: {e}");
            std::process::exit(1)
        });
        ep.add(fd, libc::EPOLLIN, token as u64);
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut s = vec![];
        for (id, v) in [(2u16, 0u32), (4, 1 << 24)] {
            s.extend_from_slice(&id.to_be_bytes());
            s.extend_from_slice(&v.to_be_bytes());
        }
        frame(&mut out, 4, 0, 0, &s);
        frame(&mut out, 8, 0, 0, &(1u32 << 30).to_be_bytes());
        Conn {
            fd, next_stream: 1, due: vec![0; RING], answered: vec![false; RING], open: 0, inb: vec![], out,
            recv_unacked: 0, send_window: 65535, max_streams: streams, armed: false,
        }
    }

    fn begin(&mut self, call: &Call, due: u64) {
        let id = self.next_stream;
        self.next_stream += 2;
        self.due[place(id)] = due;
        self.answered[place(id)] = false;
        self.open += 1;
        self.send_window -= call.message.len() as i64;
        frame(&mut self.out, 1, 4, id, &call.headers);
        frame(&mut self.out, 0, 1, id, &call.message);
    }

    /// Takes what arrived; a call is over when the peer ends its stream.
    fn feed(&mut self, bytes: &[u8], plan: &Schedule, t: &mut Totals) {
        self.inb.extend_from_slice(bytes);
        let now = sys::now_ns();
        let inb = std::mem::take(&mut self.inb);
        let mut pos = 0;
        while inb.len() - pos >= 9 {
            let h = &inb[pos..pos + 9];
            let len = u32::from_be_bytes([0, h[0], h[1], h[2]]) as usize;
            if inb.len() - pos < 9 + len {
                break;
            }
            let (ty, flags) = (h[3], h[4]);
            let id = u32::from_be_bytes([h[5] & 0x7f, h[6], h[7], h[8]]);
            let payload = &inb[pos + 9..pos + 9 + len];
            pos += 9 + len;
            t.failed += u64::from(self.frame(ty, flags, id, payload));
            if id != 0 && ((ty <= 1 && flags & 1 != 0) || ty == 3) {
                self.open -= 1;
                t.total += 1;
                if now >= plan.from && now <= plan.end {
                    t.done += 1;
                    t.lat.record(now.saturating_sub(self.due[place(id)]));
                }
            }
        }
        self.inb = inb[pos..].to_vec();
    }

    /// Answers one frame as the protocol asks; true when it tells of a failure.
    fn frame(&mut self, ty: u8, flags: u8, id: u32, payload: &[u8]) -> bool {
        let len = payload.len();
        match ty {
            0 => {
                self.recv_unacked += len as u32;
                if self.recv_unacked > 1 << 22 {
                    frame(&mut self.out, 8, 0, 0, &self.recv_unacked.to_be_bytes());
                    self.recv_unacked = 0;
                }
            }
            1 if !std::mem::replace(&mut self.answered[place(id)], true) => {
                // The answer's head begins with `:status 200` (index 8 of the static table), behind changes of the table's
                // size if any; a call that ends with its head is one that a proxy or the server refused.
                let status = payload.iter().find(|byte| *byte & 0xe0 != 0x20);
                return flags & 1 != 0 || status != Some(&0x88);
            }
            3 => return true,
            4 if flags & 1 == 0 => {
                for s in payload.chunks_exact(6) {
                    if s[..2] == [0, 3] {
                        let m = u32::from_be_bytes(s[2..6].try_into().unwrap()) as usize;
                        self.max_streams = self.max_streams.min(m);
                    }
                }
                frame(&mut self.out, 4, 1, 0, &[]);
            }
            6 if flags & 1 == 0 => frame(&mut self.out, 6, 1, 0, payload),
            7 => {
                eprintln!("GOAWAY: {:?}", String::from_utf8_lossy(&payload[8..]));
                return true;
            }
            8 if id == 0 => {
                self.send_window += u32::from_be_bytes(payload.try_into().unwrap()) as i64 & 0x7fff_ffff;
            }
            _ => {}
        }
        false
    }

    fn flush(&mut self, ep: &Epoll, token: usize) {
        while !self.out.is_empty() {
            let n = sys::send(self.fd, &self.out);
            if n <= 0 {
                if !self.armed {
                    ep.modify(self.fd, libc::EPOLLIN | libc::EPOLLOUT, token as u64);
                    self.armed = true;
                }
                return;
            }
            self.out.drain(..n as usize);
        }
        if self.armed {
            ep.modify(self.fd, libc::EPOLLIN, token as u64);
            self.armed = false;
        }
    }
}
