//! Archives in a real S3 server that fails now and then, and read by DuckDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dalp_fixtures::{S3Server, tools::say_stderr};
use dalp_partitions::{Act, Archive, ArchiveError, Switches};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::archive::{acts, run, write};
use super::retire::filled;
use super::*;

/// A proxy before the server that fails a number of requests, or all.
struct Faults {
    port: u16,
    /// Requests to fail before one passes; less than 0 fails all.
    left: Arc<AtomicI64>,
    failed: Arc<AtomicI64>,
}

impl Faults {
    /// `cut`: closes the connection inside the request, instead of answering 503.
    async fn before(server: u16, cut: bool) -> Self {
        Self::with(server, cut, false).await
    }

    /// `careless`: conditions of a request are not passed on, as by a store that does not know them.
    async fn with(server: u16, cut: bool, careless: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (left, failed) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (shared, counted) = (left.clone(), failed.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (left, failed) = (shared.clone(), counted.clone());
                tokio::spawn(async move {
                    let _ = serve(client, server, (cut, careless), &left, &failed).await;
                });
            }
        });
        Self { port, left, failed }
    }

    fn archive(&self) -> Archive {
        let options = [
            ("aws_endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("aws_allow_http", "true".into()),
            ("aws_region", "us-east-1".into()),
            ("aws_access_key_id", "key".into()),
            ("aws_secret_access_key", "geheim".into()),
        ];
        let archive =
            Archive::open("s3://archive/dalp", options.map(|(name, value)| (name.to_owned(), value))).unwrap();
        assert!(!format!("{archive:?} {}", archive.name()).contains("geheim"));
        archive
    }
}

/// Connections are kept alive, so that each piece from the client is looked at: a new request may begin with it.
async fn serve(
    mut client: TcpStream,
    server: u16,
    (cut, careless): (bool, bool),
    left: &AtomicI64,
    failed: &AtomicI64,
) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if left.load(Ordering::SeqCst) != 0 {
                    left.fetch_sub(1, Ordering::SeqCst);
                    failed.fetch_add(1, Ordering::SeqCst);
                    if cut {
                        upstream.write_all(&from_client[..read / 2]).await?;
                    } else {
                        client.write_all(b"HTTP/1.1 503 Slow Down\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await?;
                    }
                    return Ok(());
                }
                if careless {
                    let name = b"if-none-match";
                    let is_it = |piece: &[u8]| piece.eq_ignore_ascii_case(name);
                    if let Some(at) = from_client[..read].windows(name.len()).position(is_it) {
                        from_client[at] = b'x';
                    }
                }
                upstream.write_all(&from_client[..read]).await?;
            }
            read = upstream.read(&mut from_server) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                client.write_all(&from_server[..read]).await?;
            }
        }
    }
}

async fn bucket(server: &S3Server) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = "PUT /archive HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_that_fails_now_and_then_gets_whole_archives_or_none() {
    let (_database, _admin, mut client) = filled().await;
    let server = S3Server::start(say_stderr).await.unwrap();
    bucket(&server).await;
    for cut in [false, true] {
        let faults = Faults::before(server.port(), cut).await;
        // For good: nothing is archived, so no leaf goes.
        faults.left.store(-1, Ordering::SeqCst);
        let began = Instant::now();
        let held = Switches { detach: false, ..Switches::ALL };
        if !cut {
            let leaf = "logs_31337_20240311";
            let bounds = dalp_partitions::Bounds::new(None, at("2024-03-12T00:00:00Z")).unwrap();
            let error = write(&faults.archive(), &mut client, &logs(), leaf, bounds, 1).await.unwrap_err();
            println!("gave up after {:?}: {error}", began.elapsed());
            assert!(matches!(error, ArchiveError::Store { .. }) && !format!("{error:?}").contains("geheim"), "{error}");
        }
        faults.left.store(0, Ordering::SeqCst);
        assert_eq!(faults.archive().list(None).await.unwrap().manifests.len(), if cut { 6 } else { 0 });
        // Now and then: it is tried again.
        faults.failed.store(0, Ordering::SeqCst);
        faults.left.store(3, Ordering::SeqCst);
        let outcome = run(&mut client, &faults.archive(), held).await;
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        if !cut {
            assert_eq!((acts(&outcome), faults.failed.load(Ordering::SeqCst)), (vec![Act::Seal, Act::Archive], 3));
            continue;
        }
        // Cut in the middle of an upload, and of reading it back; then for good, which leaves nothing that a query would read.
        let bounds = dalp_partitions::Bounds::new(None, at("2024-03-12T00:00:00Z")).unwrap();
        for (left, version) in [(2, 8), (-1, 9)] {
            faults.left.store(left, Ordering::SeqCst);
            let written = write(&faults.archive(), &mut client, &logs(), "logs_31337_20240311", bounds, version).await;
            faults.left.store(0, Ordering::SeqCst);
            assert_eq!(written.is_ok(), left > 0, "{written:?}");
            if let Ok(manifest) = written {
                faults.archive().verify(&manifest).await.unwrap();
                faults.archive().void(&manifest).await.unwrap();
            }
        }
        assert_eq!(faults.archive().list(None).await.unwrap().manifests.len(), 6);
        // Cut in the middle of reading before the drop.
        faults.left.store(3, Ordering::SeqCst);
        let outcome = run(&mut client, &faults.archive(), Switches::ALL).await;
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        assert_eq!(acts(&outcome), [Act::Retire, Act::Detach, Act::Drop]);
        assert!(faults.failed.load(Ordering::SeqCst) >= 3);
        for manifest in faults.archive().list(Some("dalp_indexed.logs")).await.unwrap().manifests {
            faults.archive().verify(&manifest).await.unwrap();
        }
    }
}

/// A store that ignores conditions is detected, and a claim is read back there.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_conditions_is_told() {
    let (_database, _admin, mut client) = filled().await;
    let server = S3Server::start(say_stderr).await.unwrap();
    bucket(&server).await;
    let careless = Faults::with(server.port(), false, true).await;
    assert!(!careless.archive().probe().await.unwrap().writes_once);
    assert!(run(&mut client, &careless.archive(), Switches::ALL).await.failed.is_empty());
    println!("the server itself: {:?}", Faults::before(server.port(), false).await.archive().probe().await);
}
