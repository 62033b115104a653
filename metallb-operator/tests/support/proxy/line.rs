//! A connection from a client to the proxy, which can be made to look dead.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::lock;

/// All connections that are open, or dead but not closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    open: Arc<Mutex<HashMap<u64, Socket>>>,
    last: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Socket {
    dead: Arc<AtomicBool>,
    /// A second descriptor, so that closing the first one says nothing to the client.
    socket: std::net::TcpStream,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    dead: Arc<AtomicBool>,
    number: u64,
    lines: Lines,
}

// === impl Lines ===

impl Lines {
    pub(super) fn freeze(&self) {
        for line in lock(&self.open).values() {
            line.dead.store(true, Ordering::SeqCst);
            // Segments are dropped before TCP sees them: neither data nor keep-alives are acknowledged.
            SockRef::from(&line.socket).attach_filter(&[SockFilter::new(DROP, 0, 0, 0)]).unwrap();
        }
    }
}

// === impl Line ===

impl Line {
    pub(super) fn new(stream: TcpStream, lines: &Lines) -> Self {
        stream.set_nodelay(true).unwrap();
        let (number, dead) = (lines.last.fetch_add(1, Ordering::SeqCst), Arc::new(AtomicBool::new(false)));
        let socket = SockRef::from(&stream).try_clone().unwrap().into();
        lock(&lines.open).insert(number, Socket { dead: Arc::clone(&dead), socket });
        Self { stream, dead, number, lines: lines.clone() }
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_dead() {
            lock(&self.lines.open).remove(&self.number);
        }
    }
}

// A dead connection never wakes anybody.
impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_dead() { Poll::Pending } else { Pin::new(&mut self.stream).poll_read(context, buffer) }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_dead() { Poll::Pending } else { Pin::new(&mut self.stream).poll_write(context, bytes) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// `BPF_RET | BPF_K`: with 0, keep no byte of the packet.
const DROP: u16 = 0x06;
