use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Forwards everything except the first response to a request whose head starts with `head`: the request arrives, and
/// the client's connection is closed without a response.
pub struct LossyProxy {
    pub url: String,
    lost: Arc<AtomicUsize>,
}

impl LossyProxy {
    pub async fn to(server: &str, head: &'static str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let lost = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lost);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counted) = (server.clone(), Arc::clone(&counted));
                tokio::spawn(async move { forward(client, &server, head, &counted).await });
            }
        });
        Self { url, lost }
    }

    /// Responses dropped: 0 or 1.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Ends both connections when either side closes, or when the response is dropped.
async fn forward(mut client: TcpStream, server: &str, head: &str, lost: &AtomicUsize) -> Option<()> {
    let mut server = TcpStream::connect(server).await.ok()?;
    let (mut sent, mut received) = (vec![0; 16_384], vec![0; 16_384]);
    let mut matches = false;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let request = &sent[..read.ok().filter(|bytes| *bytes > 0)?];
                matches |= request.starts_with(head.as_bytes());
                server.write_all(request).await.ok()?;
            }
            read = server.read(&mut received) => {
                let response = &received[..read.ok().filter(|bytes| *bytes > 0)?];
                if matches && lost.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    return None;
                }
                client.write_all(response).await.ok()?;
            }
        }
    }
}
