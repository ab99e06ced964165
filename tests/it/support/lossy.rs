//! A line to a server that loses an answer: the request arrives, and the client never hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A listener that passes everything on, but for the first answer to a request whose head begins in a certain way.
pub struct LossyLine {
    pub url: String,
    lost: Arc<AtomicUsize>,
}

impl LossyLine {
    pub async fn to(server: &str, head: &'static str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let lost = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lost);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counted) = (server.clone(), Arc::clone(&counted));
                tokio::spawn(async move { pass_on(client, &server, head, &counted).await });
            }
        });
        Self { url, lost }
    }

    /// How many answers were lost.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Passes bytes on until either side ends, or an answer is to be lost: then both connections end.
async fn pass_on(mut client: TcpStream, server: &str, head: &str, lost: &AtomicUsize) -> Option<()> {
    let mut server = TcpStream::connect(server).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 16_384], vec![0; 16_384]);
    let mut to_be_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let request = &asked[..read.ok().filter(|bytes| *bytes > 0)?];
                to_be_lost |= request.starts_with(head.as_bytes());
                server.write_all(request).await.ok()?;
            }
            read = server.read(&mut answered) => {
                let answer = &answered[..read.ok().filter(|bytes| *bytes > 0)?];
                if to_be_lost && lost.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    return None;
                }
                client.write_all(answer).await.ok()?;
            }
        }
    }
}
