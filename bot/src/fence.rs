//! The fence: what stands between a request and the socket.
//!
//! A process can be stopped between any two of its steps: between the leave for an effect and the first byte of it. So the lease is
//! looked at once more at each write, and a byte that would come too late is not written. What is in the system's buffers by then
//! may still leave.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use shared::lease::Epoch;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::port::Port;

/// Makes connections behind the fence.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpConnector,
    fence: Fence,
}

#[derive(Clone)]
struct Fence {
    port: Arc<dyn Port>,
    epoch: Epoch,
}

impl Connector {
    pub(crate) fn new(inner: HttpConnector, port: Arc<dyn Port>, epoch: Epoch) -> Self {
        Self {
            inner,
            fence: Fence { port, epoch },
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Fenced;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Fenced, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let fence = self.fence.clone();
        Box::pin(async move {
            let io = connecting.await?;
            Ok(Fenced { io, fence })
        })
    }
}

/// A connection behind the fence.
pub(crate) struct Fenced {
    io: TokioIo<TcpStream>,
    fence: Fence,
}

impl Fenced {
    fn check(&self) -> io::Result<()> {
        match self.fence.port.holds(self.fence.epoch) {
            true => Ok(()),
            false => Err(io::Error::other("this node is not primary any more")),
        }
    }
}

impl Connection for Fenced {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl Read for Fenced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Fenced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
