//! A web server of a folder for stories, which does otherwise where a story says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Below `/atflow/`.
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
}

impl Asked {
    pub(crate) fn is_blob(&self) -> bool {
        self.path.starts_with("objects/")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.starts_with("actions/")
    }

    /// What a header says.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.iter().filter_map(|line| line.split_once(": "));
        values.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A server that runs until the story ends.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Bytes that clients took.
    pub(crate) sent: Arc<AtomicU64>,
    /// Connections that were made.
    pub(crate) connections: Arc<AtomicU64>,
}

/// A connection, encrypted perhaps.
pub(crate) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// Answers in its own way and tells that it did, or leaves the answer to the folder.
pub(crate) type Answer = dyn Fn(&Asked, &mut dyn Write) -> bool + Send + Sync;

/// Makes of a connection what is spoken over it; nothing if the two cannot agree.
pub(crate) type Greet = dyn Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync;

impl Server {
    /// A server of a folder, with its own answers.
    pub(crate) fn start(folder: PathBuf, answer: Box<Answer>) -> Self {
        Self::greeting("http", folder, answer, Box::new(|stream| Some(Box::new(stream))))
    }

    /// The same with its own way to begin a connection.
    pub(crate) fn greeting(scheme: &str, folder: PathBuf, answer: Box<Answer>, greet: Box<Greet>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://localhost:{}/atflow", listener.local_addr().unwrap().port());
        let server = Server { url, asked: Arc::default(), sent: Arc::default(), connections: Arc::default() };
        let (asked, sent, connections) = (server.asked.clone(), server.sent.clone(), server.connections.clone());
        let (answer, greet) = (Arc::new(answer), Arc::new(greet));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (folder, asked, sent) = (folder.clone(), asked.clone(), sent.clone());
                let (answer, greet) = (answer.clone(), greet.clone());
                std::thread::spawn(move || {
                    if let Some(mut stream) = greet(stream.unwrap()) {
                        serve(&mut *stream, &folder, &**answer, &asked, &sent);
                    }
                });
            }
        });
        server
    }

    /// The paths that were asked for.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }

    pub(crate) fn megabytes_sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst) >> 20
    }
}

fn serve(mut stream: &mut dyn Stream, folder: &Path, answer: &Answer, log: &Mutex<Vec<Asked>>, sent: &AtomicU64) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = request.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let asked = Asked { method, path: path.trim_start_matches("/atflow/").to_owned(), headers };
    log.lock().unwrap().push(asked.clone());
    let mut counted = Counted { stream, sent };
    if answer(&asked, &mut counted) {
        return;
    }
    let path = asked.path.split('?').next().unwrap();
    let (status, body) = match std::fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    // A client that has heard enough may be gone.
    _ = head(&mut counted, status, &format!("Content-Length: {}", body.len()));
    if asked.method != "HEAD" {
        _ = counted.write_all(&body);
    }
}

/// Writes the head of an answer.
pub(crate) fn head(to: &mut dyn Write, status: &str, headers: &str) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n\r\n")
}

struct Counted<'a> {
    stream: &'a mut dyn Stream,
    sent: &'a AtomicU64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.sent.fetch_add(count as u64, Ordering::SeqCst);
        self.stream.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
