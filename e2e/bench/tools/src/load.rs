//! HTTP/1.1 load generator.
//!
//! `--rate 0` (default): closed loop, every connection always has one request in flight.
//! `--rate R`: open loop. Request i is due at start + i/R whatever the server does; it goes
//! out on the next free connection, and its latency counts from the time it was *due*
//! (as wrk2 and `oha --latency-correction` do), so queueing behind a slow answer is seen.
//! Requests that were due but never sent before the end are reported as `unsent`.
use crate::args::Args;
use crate::hist::Hist;
use crate::sys::{self, Epoll};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::RawFd;

struct Conn {
    fd: RawFd,
    due: u64,
    busy: bool,
    got: usize,
    want: usize,
    chunked: bool,
    tail: [u8; 8],
    head: Vec<u8>,
    bad: bool,
    close: bool,
}

#[derive(Default)]
struct Totals {
    lat: Hist,
    done: u64,
    total: u64,
    errors: u64,
    non2xx: u64,
    reconnects: u64,
    unsent: u64,
    bytes: u64,
}

#[derive(Clone)]
struct Plan {
    addr: SocketAddr,
    socks_to: Option<SocketAddr>,
    conns: usize,
    rate: f64,
    start: u64,
    measure_from: u64,
    end: u64,
    requests: Vec<Vec<u8>>,
    new_conn_each: bool,
}

pub fn run(args: &Args) {
    let addr = sys::resolve(&args.str("addr", "127.0.0.1:8080"));
    let threads: usize = args.num("threads", 1);
    let conns: usize = args.num("conns", 64);
    let rate: f64 = args.num("rate", 0.0);
    let warmup: f64 = args.num("warmup", 1.0);
    let duration: f64 = args.num("duration", 5.0);
    let host = args.str("host", "app.bench.svc.cluster.local");
    // {i} in --host or --path is replaced by 0..variants-1, round robin (route-table runs).
    let variants: usize = args.num("variants", 1);
    let path = args.str("path", "/");
    let mut extra = String::new();
    for h in args.all("header") {
        extra.push_str(h);
        extra.push_str("\r\n");
    }
    let body = args.num("post", 0usize);
    let requests = (0..variants)
        .map(|i| {
            let (h, p) = (host.replace("{i}", &i.to_string()), path.replace("{i}", &i.to_string()));
            let mut r = if body > 0 {
                format!("POST {p} HTTP/1.1\r\nhost: {h}\r\ncontent-length: {body}\r\n{extra}\r\n")
            } else {
                format!("GET {p} HTTP/1.1\r\nhost: {h}\r\nuser-agent: meshbench\r\naccept: */*\r\n{extra}\r\n")
            }
            .into_bytes();
            r.resize(r.len() + body, b'x');
            r
        })
        .collect::<Vec<_>>();
    let start = sys::now_ns() + 50_000_000;
    let ns = |s: f64| (s * 1e9) as u64;
    let plan = Plan {
        addr,
        socks_to: args.opt("socks-to").map(sys::resolve),
        conns: conns.div_ceil(threads),
        rate: rate / threads as f64,
        start,
        measure_from: start + ns(warmup),
        end: start + ns(warmup + duration),
        requests,
        new_conn_each: args.has("new-conn-each"),
    };
    let hs: Vec<_> = (0..threads)
        .map(|_| {
            let p = plan.clone();
            std::thread::spawn(move || worker(&p))
        })
        .collect();
    let mut t = Totals::default();
    for h in hs {
        let o = h.join().unwrap();
        t.lat.merge(&o.lat);
        t.done += o.done;
        t.total += o.total;
        t.errors += o.errors;
        t.non2xx += o.non2xx;
        t.reconnects += o.reconnects;
        t.unsent += o.unsent;
        t.bytes += o.bytes;
    }
    println!(
        "{{\"rps\":{:.1},\"requests\":{},\"total\":{},\"errors\":{},\"non2xx\":{},\"reconnects\":{},\"unsent\":{},\"seconds\":{},\"bytes\":{},\"latency_us\":{}}}",
        t.done as f64 / duration, t.done, t.total, t.errors, t.non2xx, t.reconnects, t.unsent, duration, t.bytes, t.lat.json()
    );
}

fn connect_all(p: &Plan, ep: &Epoll) -> Vec<Conn> {
    let connect = |i| match sys::connect_nonblocking(p.addr, p.socks_to) {
        Ok(fd) => {
            ep.add(fd, libc::EPOLLIN, i as u64);
            Conn::new(fd)
        }
        Err(e) => {
            eprintln!("connect {}: {e}", p.addr);
            std::process::exit(1);
        }
    };
    (0..p.conns).map(connect).collect()
}

fn worker(p: &Plan) -> Totals {
    let ep = Epoll::new();
    let mut t = Totals::default();
    let mut conns = connect_all(p, &ep);
    let mut idle: VecDeque<usize> = (0..conns.len()).collect();
    let gap = if p.rate > 0.0 { 1e9 / p.rate } else { 0.0 };
    let mut issued: u64 = 0;
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buf = vec![0u8; 1 << 17];
    while sys::now_ns() < p.start {
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    loop {
        let mut now = sys::now_ns();
        if now >= p.end {
            break;
        }
        let mut wait = 100_000_000;
        while let Some(&i) = idle.front() {
            let due = if gap > 0.0 {
                let due = p.start + (issued as f64 * gap) as u64;
                if due > now {
                    now = sys::now_ns();
                    if due > now {
                        wait = due - now;
                        break;
                    }
                }
                due
            } else {
                sys::now_ns()
            };
            idle.pop_front();
            conns[i].begin(due);
            let req = &p.requests[issued as usize % p.requests.len()];
            issued += 1;
            if sys::send(conns[i].fd, req) != req.len() as isize {
                t.errors += 1;
                conns[i].reopen(&ep, i, p, &mut t);
                idle.push_back(i);
                if p.rate == 0.0 {
                    break;
                }
            }
        }
        let n = ep.wait(&mut evs, wait.min(p.end.saturating_sub(now)).max(1));
        for ev in &evs[..n] {
            let i = ev.u64 as usize;
            let c = &mut conns[i];
            let n = sys::recv(c.fd, &mut buf);
            if n < 0 && sys::would_block() {
                continue;
            }
            if n <= 0 || !c.busy {
                if c.busy {
                    t.errors += 1;
                    idle.push_back(i);
                }
                c.reopen(&ep, i, p, &mut t);
                continue;
            }
            let now = sys::now_ns();
            if now >= p.measure_from {
                t.bytes += n as u64;
            }
            if c.feed(&buf[..n as usize]) {
                t.total += 1;
                if now >= p.measure_from && now <= p.end {
                    t.done += 1;
                    t.lat.record(now - c.due.min(now));
                    if c.bad {
                        t.non2xx += 1;
                    }
                }
                c.busy = false;
                if c.close || p.new_conn_each {
                    c.reopen(&ep, i, p, &mut t);
                }
                idle.push_back(i);
            }
        }
    }
    if gap > 0.0 {
        let due_total = ((p.end - p.start) as f64 / gap) as u64;
        t.unsent = due_total.saturating_sub(issued + 1);
    }
    t
}

impl Conn {
    fn new(fd: RawFd) -> Self {
        Conn { fd, due: 0, busy: false, got: 0, want: 0, chunked: false, tail: [0; 8], head: vec![], bad: false, close: false }
    }
    fn begin(&mut self, due: u64) {
        self.due = due;
        self.busy = true;
        self.got = 0;
        self.want = 0;
        self.chunked = false;
        self.head.clear();
    }
    fn reopen(&mut self, ep: &Epoll, i: usize, p: &Plan, t: &mut Totals) {
        sys::close(self.fd);
        t.reconnects += 1;
        for _ in 0..50 {
            if let Ok(fd) = sys::connect_nonblocking(p.addr, p.socks_to) {
                ep.add(fd, libc::EPOLLIN, i as u64);
                *self = Conn::new(fd);
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("cannot reconnect to {}", p.addr);
        std::process::exit(1);
    }
    /// True when the response is complete.
    fn feed(&mut self, data: &[u8]) -> bool {
        if self.want == 0 && !self.chunked {
            if self.head.is_empty() {
                if !self.parse_head(data) {
                    self.head.extend_from_slice(data);
                    return false;
                }
            } else {
                self.head.extend_from_slice(data);
                let head = std::mem::take(&mut self.head);
                if !self.parse_head(&head) {
                    self.head = head;
                    return false;
                }
            }
        } else {
            self.got += data.len();
            self.note_tail(data);
        }
        if self.chunked {
            self.tail.ends_with(b"0\r\n\r\n")
        } else {
            self.got >= self.want
        }
    }
    fn note_tail(&mut self, data: &[u8]) {
        for b in &data[data.len().saturating_sub(8)..] {
            self.tail.rotate_left(1);
            self.tail[7] = *b;
        }
    }
    fn parse_head(&mut self, data: &[u8]) -> bool {
        let Some(h) = memmem(data, b"\r\n\r\n") else { return false };
        let head = &data[..h + 2];
        self.bad = head.len() < 12 || head[9] != b'2';
        self.close = false;
        let mut len = None;
        for line in head.split(|b| *b == b'\n').skip(1) {
            match line.first() {
                Some(b'c' | b'C') if line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:") => {
                    len = std::str::from_utf8(&line[15..]).ok().and_then(|s| s.trim().parse::<usize>().ok());
                }
                Some(b'c' | b'C') if line.len() > 11 && line[..11].eq_ignore_ascii_case(b"connection:") => {
                    self.close = line.windows(5).any(|w| w.eq_ignore_ascii_case(b"close"));
                }
                Some(b't' | b'T') if line.len() > 18 && line[..18].eq_ignore_ascii_case(b"transfer-encoding:") => {
                    self.chunked = true;
                }
                _ => {}
            }
        }
        self.got = data.len();
        self.want = h + 4 + len.unwrap_or(0);
        self.note_tail(data);
        true
    }
}

fn memmem(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let p = unsafe {
        libc::memmem(hay.as_ptr() as *const _, hay.len(), needle.as_ptr() as *const _, needle.len())
    };
    (!p.is_null()).then(|| p as usize - hay.as_ptr() as usize)
}
