//! The command line: definitions only.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::time::Duration;

use crate::duration;
use crate::target::Target;

/// The demo shop's services and their clients.
#[derive(Parser, Debug)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// The shop's page (HTTP/1.1): asks catalogue and reviews, and orders over gRPC
    Web(Box<Web>),
    /// The products (HTTP/1.1)
    Catalogue(Service),
    /// What customers say (HTTP/1.1); versions other than v1 ask ratings for stars
    Reviews(Reviews),
    /// The stars (HTTP/1.1)
    Ratings(Service),
    /// Orders (gRPC): unary, server streaming, bidirectional
    Orders(Service),
    /// Answers each line with who it is and the line (TCP)
    TcpEcho(TcpEcho),
    /// Echoes messages and sends a tick now and then (WebSocket)
    Feed(Feed),
    /// Sends requests and prints what came back as JSON
    #[command(subcommand)]
    Client(Client),
}

/// What every service has.
#[derive(Args, Debug)]
pub(crate) struct Service {
    /// Address to listen on; port 0 picks one, the first line on stdout tells it
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Version that answers name
    #[arg(long, default_value = "v1")]
    pub(crate) version: String,
    /// Instance that answers name (default: the host's name)
    #[arg(long)]
    pub(crate) instance: Option<String>,
    /// Share of requests to fail, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) fail_rate: f64,
    /// Status of failed requests (gRPC answers `unavailable`)
    #[arg(long, default_value_t = 503, value_parser = clap::value_parser!(u16).range(400..600))]
    pub(crate) fail_status: u16,
    /// Wait before each answer, such as 250ms or 2s
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    pub(crate) delay: Duration,
    /// Time that requests in flight get after SIGTERM
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    pub(crate) drain: Duration,
}

/// How a service reaches others.
#[derive(Args, Debug)]
pub(crate) struct Reach {
    /// Send HTTP requests to this proxy, with the whole URL in the request line
    #[arg(long)]
    pub(crate) http_proxy: Option<SocketAddr>,
    /// Time for one call
    #[arg(long, default_value = "15s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct Web {
    #[command(flatten)]
    pub(crate) service: Service,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// URL, or URL@ADDRESS:PORT to connect elsewhere than the URL's host says
    #[arg(long)]
    pub(crate) catalogue: Target,
    /// As --catalogue
    #[arg(long)]
    pub(crate) reviews: Target,
    /// As --catalogue; without it /api/orders answers 404
    #[arg(long)]
    pub(crate) orders: Option<Target>,
}

#[derive(Args, Debug)]
pub(crate) struct Reviews {
    #[command(flatten)]
    pub(crate) service: Service,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// URL, or URL@ADDRESS:PORT; needed for versions other than v1
    #[arg(long, required_if_eq_any([("version", "v2"), ("version", "v3")]))]
    pub(crate) ratings: Option<Target>,
}

#[derive(Args, Debug)]
pub(crate) struct TcpEcho {
    #[command(flatten)]
    pub(crate) service: Service,
    /// Speak first: one line that names who it is
    #[arg(long)]
    pub(crate) banner: bool,
    /// Address for /healthz over HTTP
    #[arg(long)]
    pub(crate) health: Option<SocketAddr>,
}

#[derive(Args, Debug)]
pub(crate) struct Feed {
    #[command(flatten)]
    pub(crate) service: Service,
    /// Pause between two ticks
    #[arg(long, default_value = "1s", value_parser = duration::parse)]
    pub(crate) interval: Duration,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Client {
    /// HTTP/1.1 requests
    Http(HttpClient),
    /// gRPC calls to orders
    Grpc(GrpcClient),
    /// WebSocket messages to feed
    Ws(WsClient),
    /// Lines to tcp-echo
    Tcp(TcpClient),
}

/// How much, how fast, for how long; every client stops at the first bound, or at SIGINT or SIGTERM.
#[derive(Args, Debug, Clone)]
pub(crate) struct Load {
    /// Number of requests; 0 = as many as the time allows
    #[arg(long, short = 'n', default_value_t = 1)]
    pub(crate) count: u64,
    /// Requests in flight at most
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,
    /// Requests per second over all, due at fixed times; without it each answer lets the next request go
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Time for everything
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    pub(crate) duration: Duration,
    /// Time for one request
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    /// Print the figures so far in each such interval, one JSON object a line
    #[arg(long, value_parser = duration::parse)]
    pub(crate) every: Option<Duration>,
    /// Exit with 1 when a request failed
    #[arg(long)]
    pub(crate) fail_on_error: bool,
}

#[derive(Args, Debug)]
pub(crate) struct HttpClient {
    #[command(flatten)]
    pub(crate) load: Load,
    /// URL, or URL@ADDRESS:PORT to connect elsewhere than the URL's host says
    #[arg(long)]
    pub(crate) url: Target,
    /// Send requests to this proxy, with the whole URL in the request line
    #[arg(long)]
    pub(crate) http_proxy: Option<SocketAddr>,
    /// Header as NAME:VALUE, repeatable; Host replaces the URL's
    #[arg(long, short = 'H')]
    pub(crate) header: Vec<String>,
    #[arg(long, short = 'X', default_value = "GET")]
    pub(crate) method: http::Method,
    /// Bytes of request body to send
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    pub(crate) body_bytes: u32,
    /// Response header to count by
    #[arg(long, default_value = "x-version")]
    pub(crate) group_by: http::HeaderName,
    /// A new connection for each request
    #[arg(long)]
    pub(crate) no_keepalive: bool,
    /// Print the last answer's status, headers and body too
    #[arg(long)]
    pub(crate) show: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Method {
    /// One message there, one back
    Unary,
    /// One message there, --messages back
    Stream,
    /// --messages there, each answered
    Bidi,
}

#[derive(Args, Debug)]
pub(crate) struct GrpcClient {
    #[command(flatten)]
    pub(crate) load: Load,
    /// URL, or URL@ADDRESS:PORT
    #[arg(long)]
    pub(crate) url: Target,
    #[arg(long, default_value = "unary")]
    pub(crate) method: Method,
    /// Messages of one streaming call
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) messages: u32,
    /// HTTP/2 connections to spread the calls over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) connections: u32,
    /// Metadata as NAME:VALUE, repeatable
    #[arg(long, short = 'H')]
    pub(crate) header: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct WsClient {
    #[command(flatten)]
    pub(crate) load: Load,
    /// URL (http or ws), or URL@ADDRESS:PORT
    #[arg(long)]
    pub(crate) url: Target,
    /// Header of the handshake as NAME:VALUE, repeatable
    #[arg(long, short = 'H')]
    pub(crate) header: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TcpClient {
    #[command(flatten)]
    pub(crate) load: Load,
    /// HOST:PORT
    #[arg(long)]
    pub(crate) addr: String,
    /// Bytes of one line
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub(crate) bytes: u32,
    /// The server speaks first: read its banner before the first line
    #[arg(long)]
    pub(crate) banner: bool,
    /// A new connection for each line
    #[arg(long)]
    pub(crate) no_keepalive: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reviews_with_stars_need_ratings() {
        assert!(Cli::try_parse_from(["shop", "reviews"]).is_ok());
        assert!(Cli::try_parse_from(["shop", "reviews", "--version", "v2"]).is_err());
        assert!(Cli::try_parse_from(["shop", "reviews", "--version", "v2", "--ratings", "http://ratings"]).is_ok());
    }

    #[test]
    fn shares_are_checked() {
        assert!(share("0.1").is_ok());
        assert!(share("1.1").is_err());
        assert!(share("x").is_err());
    }
}
